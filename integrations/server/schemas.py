"""Requests as clients send them: OpenAI's embeddings, Cohere's and Jina's reranking, and search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

Share = Annotated[float, Field(ge=0, le=1)]


class Request(BaseModel):
    """Fields a server does not know are passed over: clients of several services send them.

    Long lists are not validated here, on the thread that serves all; `Limits.texts_of` looks at them in the request's own.
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
    k: Annotated[int, Field(ge=0)] = 10
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: dict[str, Any] | None = None
    rerank: bool = False
    mmr: Share | None = None
    min_score: float | None = None
    dense_weight: Share | None = None
