"""Answers as clients get them; routes that stream their JSON declare them for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Response(BaseModel):
    """An answer."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorDetail(Response):
    """What was wrong: a sentence for people, the kind of error, and the field at fault."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorResponse(Response):
    """An error in OpenAI's shape."""

    error: ErrorDetail


class ModelRecord(Response):
    """A model in OpenAI's shape, with the number of a vector's components."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "tp-retrieval"
    dimension: int


class ModelsResponse(Response):
    """The models served: one."""

    object: Literal["list"] = "list"
    data: list[ModelRecord]


class Usage(Response):
    """Tokens of a request's texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingUsage(Usage):
    """Tokens of texts, and those that were cut off."""

    cut_tokens: int


class Embedding(Response):
    """One vector, as numbers or as base64 of float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(Response):
    """OpenAI's shape."""

    object: Literal["list"] = "list"
    model: str
    usage: EmbeddingUsage
    data: list[Embedding]


class RankedText(Response):
    """The text of a ranked document."""

    text: str


class Ranked(Response):
    """A document's place in the request, its score, and its text if asked for."""

    index: int
    relevance_score: float
    document: RankedText | None = None


class RerankResponse(Response):
    """Cohere's and Jina's shape."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]


class AccessResponse(Response):
    """What the sender's key may do: write, in which indexes and namespace (null: all); and what the server offers."""

    write: bool
    namespace: str | None
    indexes: list[str] | None = Field(description='Names or patterns such as "team-*".')
    reranks: bool
    answers: bool


class IndexRecord(Response):
    """An index: its name, its documents in all namespaces that the key sees, each with its own, and how it is searched."""

    name: str
    documents: int
    namespaces: dict[str, int] | None = None
    kind: str | None = None
    tokenizer: str | None = None
    model: str | None = None
    metadata_keys: list[str] | None = None


class IndexesResponse(Response):
    """The indexes that a key sees."""

    data: list[IndexRecord]


class StoredDocument(Response):
    """A document with its id, text and metadata."""

    id: str
    text: str
    metadata: dict[str, Any]


class DocumentsResponse(Response):
    """A page of documents; `next_offset` is that of the next page, null at the end."""

    documents: list[StoredDocument]
    next_offset: int | None


class WrittenResponse(Response):
    """Documents that are stored: their ids, how many were new or changed, and how many were there already."""

    ids: list[str]
    added: int
    unchanged: int


class RemovedResponse(Response):
    """How many documents were removed."""

    removed: int


class SkippedFile(Response):
    """A file that was not read, and why."""

    path: str
    reason: str


class FilesResponse(Response):
    """What became of files: chunks embedded, moved and removed, files left as they were, without text, and skipped."""

    added: int
    removed: int
    moved: int
    unchanged_files: int
    empty_files: int
    skipped: list[SkippedFile]


class JobResponse(Response):
    """Long work: what is done of it, and its result or why it failed."""

    id: str
    kind: Literal["documents", "files"]
    index: str
    state: Literal["running", "done", "failed"]
    done: int
    total: int | None
    seconds: float
    result: WrittenResponse | FilesResponse | None = None
    error: str | None = None


class HitRecord(Response):
    """A hit: its rank and scores, how likely it is relevant (0 to 1), and its document."""

    rank: int
    score: float
    relevance: float | None = None
    parts: dict[str, float]
    id: str
    text: str
    metadata: dict[str, Any]
    passage: str | None = Field(default=None, description="The text with what stands around it, where asked for.")
    html: str | None = Field(
        default=None, description="The text, or the passage, as HTML without scripts, where asked for; null if it is long."
    )


class SearchResponse(Response):
    """The hits of a query, best first."""

    query: str
    milliseconds: float
    hits: list[HitRecord]


class CitedSentence(Response):
    """A sentence of an answer, with the numbers of the hits that have its words."""

    text: str
    sources: list[int]


class AnswerResponse(Response):
    """An answer from hits: numbers in brackets are places in `hits`, from 1. Refused where the hits hold none."""

    question: str
    answer: str
    refused: bool
    evidence: float | None
    sentences: list[CitedSentence]
    hits: list[HitRecord]


class ChatMessage(Response):
    """A turn that the model wrote."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(Response):
    """The one choice there is."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]


class ChatUsage(Usage):
    """Tokens read and written."""

    completion_tokens: int


class ChatResponse(Response):
    """OpenAI's shape, with the hits that were read where an index was named."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    hits: list[HitRecord] | None = None


class HealthResponse(Response):
    """That the server runs, and what it serves."""

    status: Literal["ok"] = "ok"
    model: str
    indexes: list[str]
