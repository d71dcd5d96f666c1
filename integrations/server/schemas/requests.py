"""Requests as clients send them: OpenAI's embeddings and chat, Cohere's and Jina's reranking, search and documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from tp_retrieval import Document
from tp_retrieval.indexing.metadata_json import with_dates
from tp_retrieval.indexing.search.query import CANDIDATES, Fusion, SearchOptions
from tp_retrieval.indexing.storage.fulltext import Tokenizer
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision
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
    """What `Index.search` takes; `index` may be left out where the server has one, and `render` asks for texts as HTML."""

    query: str
    index: str | None = None
    namespace: str = ""
    k: Annotated[int, Field(ge=0)] = 10
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: dict[str, Any] | None = None
    ids: Annotated[list[str], Field(max_length=10_000)] | None = None
    rerank: bool = False
    mmr: Share | None = None
    min_score: float | None = None
    min_relevance: Share | None = None
    dense_weight: Share | None = None
    fusion: Fusion = "convex"
    candidates: Annotated[int, Field(ge=1, le=10_000)] = CANDIDATES
    expand: Annotated[int, Field(ge=0, le=64)] | Literal["section"] | None = None
    group_by: Annotated[str, Field(min_length=1)] | None = None
    render: bool = False

    @property
    def options(self) -> SearchOptions:
        """The options of `Index.search`."""
        return {
            "mode": self.mode,
            "where": self.where,
            "ids": self.ids,
            "namespace": self.namespace,
            "mmr": self.mmr,
            "min_score": self.min_score,
            "min_relevance": self.min_relevance,
            "dense_weight": self.dense_weight,
            "fusion": self.fusion,
            "candidates": self.candidates,
            "expand": self.expand,
            "group_by": self.group_by,
        }


class NewIndexRequest(Request):
    """A name, and what `Index.create` takes; `recipe` is a shipped one's name or its JSON, by default the server's."""

    name: str
    recipe: str | dict[str, Any] | None = None
    kind: str = "auto"
    target_recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    tokenizer: Tokenizer = "words"
    raw: RawPrecision = "float32"


class NewDocument(Request):
    """A document; one without an id gets one."""

    text: str
    id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def document(self) -> Document:
        """The document, with dates where JSON has `{"$date": …}`."""
        return Document(self.text, with_dates(self.metadata), self.id)


class DocumentsRequest(Request):
    """Documents to add, or to replace those of the same id with."""

    documents: list[NewDocument]
    namespace: str = ""


class AnswerRequest(SearchRequest):
    """A question for `Answerer`, with the search for its hits; `stream` sends server-sent events."""

    k: Annotated[int, Field(ge=1, le=50)] = 5
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    min_evidence: float | None = 0.1
    stream: bool = False


class ChatTurn(Request):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[dict[str, Any]]


class StreamOptions(Request):
    """OpenAI's options of a stream."""

    include_usage: bool = False


class ChatRequest(Request):
    """OpenAI's shape; with `index` the last message is searched for first, and its hits are put before it."""

    messages: Annotated[list[ChatTurn], Field(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    index: str | None = None
    namespace: str = ""
    where: dict[str, Any] | None = None
    k: Annotated[int, Field(ge=1, le=50)] = 5
