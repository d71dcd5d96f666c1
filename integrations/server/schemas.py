"""Requests as clients send them: OpenAI's embeddings, Cohere's and Jina's reranking, and search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.types import Role

Share = Annotated[float, Field(ge=0, le=1)]


class Request(BaseModel):
    """A request; unknown fields are ignored, since clients of several services send them.

    Long lists are not validated here, on the event loop; `Limits.texts_of` checks them on the request's thread.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class TextObject(Request):
    """A text as an object, as Cohere and Jina have it."""

    text: str


class EmbeddingsRequest(Request):
    """OpenAI's shape, with `input_type` for the recipe's template."""

    input: SkipValidation[str | list[str | TextObject] | list[int] | list[list[int]]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: Literal["query", "document", "search_query", "search_document"] = "document"

    @property
    def role(self) -> Role:
        """The template's role."""
        return "query" if self.input_type.endswith("query") else "document"


class RerankRequest(Request):
    """Cohere's and Jina's shape."""

    query: str
    documents: SkipValidation[list[str | TextObject]]
    model: str | None = None
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool = False


class SearchRequest(Request):
    """What `Index.search` takes; `index` may be left out where the server has one."""

    query: str
    index: str | None = None
    namespace: str = ""
    k: Annotated[int, Field(ge=0)] = 10
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: dict[str, Any] | None = None
    rerank: bool = False
    mmr: Share | None = None
    min_score: float | None = None
    min_relevance: Share | None = None
    dense_weight: Share | None = None
    expand: Annotated[int, Field(ge=0, le=64)] | Literal["section"] | None = None
    group_by: Annotated[str, Field(min_length=1)] | None = None

    @property
    def options(self) -> SearchOptions:
        """The options of `Index.search`."""
        return {
            "mode": self.mode,
            "where": self.where,
            "namespace": self.namespace,
            "mmr": self.mmr,
            "min_score": self.min_score,
            "min_relevance": self.min_relevance,
            "dense_weight": self.dense_weight,
            "expand": self.expand,
            "group_by": self.group_by,
        }
