"""Requests to a server as values, and what their answers mean; `Client` sends them, and `AsyncClient` does without waiting.

call = Calls("faq", "alice").search("rollback", 5, {"mode": "dense"})
call.path, call.json                                 # "/v1/search", {"query": "rollback", ...}
hits = call.parse(response)
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np

from tp_retrieval.errors import IndexExistsError, IndexNotFoundError, InputError, ServerError
from tp_retrieval.indexing.metadata_json import to_json, with_dates
from tp_retrieval.indexing.search.neighbours import Expand
from tp_retrieval.indexing.search.query import Fusion, Mode, Where
from tp_retrieval.indexing.storage.fulltext import Tokenizer
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision
from tp_retrieval.indexing.validation import prepared
from tp_retrieval.types import Document, Float32Array, Hit, Role, check_text, checked_texts

Result = TypeVar("Result")

_ADDRESS = 8_000  # characters of ids in an address; servers and proxies refuse long ones
_NAMED = 500  # ids in an address

TOGETHER = 256
"""Documents, or texts, of a request."""

PAGE = 1_000
"""Documents of an answer."""


class SearchOptions(TypedDict, total=False):
    """What a search over HTTP takes by name, as `Index.search` does; `rerank` is by the server's method."""

    where: Where | None
    ids: Sequence[str] | None
    namespace: str
    mode: Mode
    mmr: float | None
    min_score: float | None
    min_relevance: float | None
    dense_weight: float | None
    fusion: Fusion
    candidates: int
    rerank: bool
    expand: Expand | None
    group_by: str | None


class IndexOptions(TypedDict, total=False):
    """What making an index takes by name, as `Index.create` does; `recipe` is a shipped one's name or its JSON."""

    recipe: str | Mapping[str, Any]
    kind: str
    target_recall: float
    tokenizer: Tokenizer
    raw: RawPrecision


@dataclass(frozen=True)
class FileReport:
    """What became of files: chunks embedded, removed and moved, files left as they were, and those skipped with why."""

    added: int
    removed: int
    moved: int
    unchanged_files: int
    empty_files: int
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer with the hits that it cites by number, from 1; refused where they hold none."""

    question: str
    text: str
    refused: bool
    evidence: float | None
    hits: tuple[Hit, ...]
    sentences: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Call(Generic[Result]):
    """A request, and the function that reads its answer's JSON."""

    method: str
    path: str
    parse: Callable[[Any], Result]
    json: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, tuple[str, bytes]]] = ()

    def read(self, content: bytes) -> Result:
        """Return what an answer means; raise `ServerError` for one that is none of this server's."""
        try:
            return self.parse(json.loads(content) if content else None)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ServerError(
                f"{self.method} {self.path}: the answer is none of a tp-retrieval server ({error})", 200
            ) from error

    def lost(self, error: Exception | None) -> ServerError:
        """Return the error of a request that was not answered, or not to the end."""
        reason = "the answer broke off" if error is None else str(error) or type(error).__name__
        return ServerError(f"{self.method} {self.path}: {reason}", None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What httpx takes by name."""
        given = {"params": dict(self.params), "headers": dict(self.headers)}
        if self.files:
            return {**given, "files": list(self.files)}
        if self.json is None:
            return given
        try:
            body = to_json(self.json).encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}: JSON can't hold what is sent ({error})") from error
        return {**given, "content": body, "headers": {**self.headers, "content-type": "application/json"}}


class Calls:
    """The requests of a client, of one index and one namespace by default."""

    def __init__(self, index: str | None, namespace: str) -> None:
        self._index = index
        self._namespace = namespace

    def add(self, documents: Sequence[Document], namespace: str | None) -> Call[list[str]]:
        """Add documents, or replace those of the same id."""
        body = {"documents": [_fields_of(document) for document in documents], "namespace": self._named(namespace)}
        return Call("POST", self._path("documents"), lambda answer: list(answer["ids"]), body)

    def add_files(
        self, files: Mapping[str, bytes], namespace: str | None, chunk_tokens: int | None, key: str | None
    ) -> Call[FileReport]:
        """Add files by name, in place of the chunks of files of the same names."""
        params: dict[str, Any] = {"namespace": self._named(namespace)}
        if chunk_tokens is not None:
            params["chunk_tokens"] = chunk_tokens
        return Call(
            "POST",
            self._path("files"),
            _file_report,
            params=params,
            headers={} if key is None else {"idempotency-key": key},
            files=[("files", (name, content)) for name, content in files.items()],
        )

    def get(
        self, ids: Sequence[str] | None, where: Where | None, namespace: str | None, limit: int, offset: int
    ) -> Call[tuple[list[Document], int | None]]:
        """Read a page of documents, and the offset of the next one."""
        params = self._selection(ids, where, namespace) | {"limit": limit, "offset": offset}
        return Call("GET", self._path("documents"), _page, params=params)

    def delete(self, ids: Sequence[str] | None, where: Where | None, namespace: str | None) -> Call[int]:
        """Remove documents."""
        if ids is None and not where:
            raise InputError("ids: give ids or where; clear() removes every document")
        params = self._selection(ids, where, namespace)
        return Call("DELETE", self._path("documents"), lambda answer: int(answer["removed"]), params=params)

    def clear(self, namespace: str | None) -> Call[int]:
        """Remove every document of a namespace."""
        params = {"namespace": self._named(namespace), "all": "true"}
        return Call("DELETE", self._path("documents"), lambda answer: int(answer["removed"]), params=params)

    def search(self, query: str, k: int, options: Mapping[str, Any]) -> Call[list[Hit]]:
        """Find documents."""
        check_text(query, "query")
        unknown = sorted(options.keys() - SearchOptions.__annotations__)
        if unknown:
            raise InputError(f"{unknown[0]}: unknown option; there are {', '.join(SearchOptions.__annotations__)}")
        body = {"query": query, "index": self._index, "k": k, "namespace": self._namespace, **options}
        return Call("POST", "/v1/search", lambda answer: [_hit(one) for one in answer["hits"]], body)

    def answer(
        self, question: str, k: int, max_tokens: int, options: Mapping[str, Any], *, stream: bool = False
    ) -> Call[WrittenAnswer]:
        """Write an answer from the hits of a question."""
        body = self.search(question, k, options).json or {}
        return Call("POST", "/v1/answers", written_answer, {**body, "max_tokens": max_tokens, "stream": stream})

    def info(self) -> Call[dict[str, Any]]:
        """Describe the index."""
        return Call("GET", self._path(), dict)

    def namespaces(self) -> Call[dict[str, int]]:
        """Count the documents of each namespace."""
        return Call("GET", self._path(), _namespaces)

    def indexes(self) -> Call[dict[str, int]]:
        """List the indexes that there are."""
        return Call("GET", "/v1/indexes", lambda answer: {one["name"]: one["documents"] for one in answer["data"]})

    def access(self) -> Call[dict[str, Any]]:
        """Say what the key may do."""
        return Call("GET", "/v1/access", dict)

    def create_index(self, name: str, options: IndexOptions) -> Call[dict[str, Any]]:
        """Make an index."""
        return Call("POST", "/v1/indexes", dict, {"name": name, **options})

    def remove_index(self, name: str) -> Call[None]:
        """Remove an index."""
        return Call("DELETE", f"/v1/indexes/{quote(name, safe='')}", lambda answer: None)

    def embed(self, texts: Sequence[str], role: Role) -> Call[Float32Array]:
        """Embed texts."""
        return Call("POST", "/v1/embeddings", _vectors, {"input": checked_texts(texts), "input_type": role})

    def rerank(self, query: str, texts: Sequence[str], top_n: int | None) -> Call[list[tuple[int, float]]]:
        """Order texts by how well they answer a query."""
        body = {"query": query, "documents": checked_texts(texts), "top_n": top_n}
        return Call(
            "POST",
            "/v1/rerank",
            lambda answer: [(one["index"], one["relevance_score"]) for one in answer["results"]],
            body,
        )

    def _named(self, namespace: str | None) -> str:
        return self._namespace if namespace is None else namespace

    def _selection(self, ids: Sequence[str] | None, where: Where | None, namespace: str | None) -> dict[str, Any]:
        params: dict[str, Any] = {"namespace": self._named(namespace)}
        if ids is not None:
            params["ids"] = list(ids)
        if where:
            params["where"] = to_json(where)
        return params

    def _path(self, *parts: str) -> str:
        if self._index is None:
            raise InputError("index: this needs one; make the client with index=NAME")
        return "/".join(["/v1/indexes", quote(self._index, safe=""), *parts])


def with_ids(documents: Sequence[Document | str], key: str | None) -> list[Document]:
    """Return documents, those without an id with one of a key and their place, or with a new one.

    Raises the `InputError` that `Index.add` would.
    """
    made = [row.id for row in prepared(documents)]
    rows = [document if isinstance(document, Document) else Document(document) for document in documents]
    ids = made if key is None else [f"{key}-{place}" for place in range(len(rows))]
    return [row if row.id is not None else replace(row, id=id_) for row, id_ in zip(rows, ids, strict=True)]


def in_address(ids: Sequence[str]) -> Iterator[list[str]]:
    """Yield ids in parts that an address has room for."""
    part: list[str] = []
    size = 0
    for id_ in checked_texts(ids, "ids"):
        needed = len(quote(id_, safe="")) + len("&ids=")
        if part and (size + needed > _ADDRESS or len(part) == _NAMED):
            yield part
            part, size = [], 0
        part.append(id_)
        size += needed
    if part:
        yield part


def refused(status: int, body: bytes) -> Exception:
    """Return the error that an answer of status 400 or more tells of."""
    try:
        error = json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = body[:200].decode("utf-8", "replace"), None
    if status in (400, 413, 422):
        return InputError(message)
    if status == 404 and param == "index":
        return IndexNotFoundError(message)
    if status == 409 and param == "name":
        return IndexExistsError(message)
    return ServerError(message, status)


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of server-sent events."""
    name = ""
    for line in lines:
        field_, _, value = line.partition(": ")
        if field_ == "event":
            name = value
        elif field_ == "data":
            yield name, json.loads(value)


async def async_events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    """Yield the names and values of server-sent events."""
    name = ""
    async for line in lines:
        field_, _, value = line.partition(": ")
        if field_ == "event":
            name = value
        elif field_ == "data":
            yield name, json.loads(value)


def content_of(files: Sequence[str | Path] | Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return files by name: those given, or those at paths by their names without folders."""
    if isinstance(files, Mapping):
        return files
    paths = [Path(file) for file in files]
    if len({path.name for path in paths}) < len(paths):
        raise InputError("files: two have the same name; give them by names of your own, {name: bytes}")
    try:
        return {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise InputError(f"files: {error.filename} can't be read ({error.strerror})") from error


def written_answer(answer: Mapping[str, Any]) -> WrittenAnswer:
    """Return an answer."""
    return WrittenAnswer(
        answer["question"],
        answer["answer"],
        answer["refused"],
        answer["evidence"],
        tuple(_hit(hit) for hit in answer["hits"]),
        tuple((sentence["text"], tuple(sentence["sources"])) for sentence in answer["sentences"]),
    )


def _fields_of(document: Document) -> dict[str, Any]:
    return {"text": document.text, "id": document.id, "metadata": dict(document.metadata)}


def _document(fields: Mapping[str, Any]) -> Document:
    return Document(fields["text"], with_dates(fields["metadata"]), fields["id"])


def _hit(fields: Mapping[str, Any]) -> Hit:
    """Return a hit; what stands around it is one document of that text."""
    document = _document(fields)
    context = (Document(fields["passage"]),) if fields.get("passage") is not None else ()
    return Hit(document, fields["score"], fields["rank"], fields["parts"], context, fields.get("relevance"))


def _page(answer: Mapping[str, Any]) -> tuple[list[Document], int | None]:
    return [_document(one) for one in answer["documents"]], answer["next_offset"]


def _namespaces(described: Mapping[str, Any]) -> dict[str, int]:
    """Return the documents by namespace; the server leaves them out where none has a name."""
    count = described["documents"]
    return described.get("namespaces") or ({"": count} if count else {})


def _file_report(answer: Mapping[str, Any]) -> FileReport:
    skipped = tuple((one["path"], one["reason"]) for one in answer["skipped"])
    counts = {name: int(answer[name]) for name in ("added", "removed", "moved", "unchanged_files", "empty_files")}
    return FileReport(**counts, skipped=skipped)


def _vectors(answer: Mapping[str, Any]) -> Float32Array:
    rows = [one["embedding"] for one in answer["data"]]
    return np.array(rows, dtype=np.float32).reshape(len(rows), -1 if rows else 0)
