"""A client of a server, with the methods of `Index`.

with Client("http://localhost:8000", "faq", api_key="…") as client:
    client.add(["a text"])
    client.search("a question", 5)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import numpy as np

from tp_retrieval.client.calls import (
    PAGE,
    TOGETHER,
    Call,
    Calls,
    FileReport,
    IndexOptions,
    SearchOptions,
    WrittenAnswer,
    content_of,
    events,
    in_address,
    refused,
    with_ids,
)
from tp_retrieval.errors import OptionalDependencyError, ServerError
from tp_retrieval.indexing.search.query import Where
from tp_retrieval.indexing.validation import check_page
from tp_retrieval.types import Document, Float32Array, Hit, Role, checked_texts

try:
    import httpx
except ImportError as error:
    raise OptionalDependencyError("httpx", "client") from error

Result = TypeVar("Result")


class Client:
    """An index behind a server, used as an `Index` is.

    `url` is the server's address, "unix:FILE" a socket in the file system. Calls are of `index`, and of `namespace` where
    they name no other. Raises `InputError`, `IndexNotFoundError`, and `ServerError` for whatever else the server refuses.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        index: str | None = None,
        *,
        api_key: str | None = None,
        namespace: str = "",
        timeout: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        if url.startswith("unix:"):
            transport, url = httpx.HTTPTransport(uds=url.removeprefix("unix:")), "http://localhost"
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._calls = Calls(index, namespace)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- the methods of `Index`

    def add(
        self, documents: Sequence[Document | str], *, namespace: str | None = None, idempotency_key: str | None = None
    ) -> list[str]:
        """Add documents, replacing those with the same id, and return their ids; they are durable when this returns.

        They are sent 256 at a time. With an `idempotency_key` those without an id get one made of it and their place, so
        that the same call can be made again after an error: what was stored stays, and is not embedded again.
        """
        rows = with_ids(documents, idempotency_key)
        ids: list[str] = []
        for begin in range(0, len(rows), TOGETHER):
            stored = self._send(self._calls.add(rows[begin : begin + TOGETHER], namespace))
            ids += stored
        return ids

    def add_files(
        self,
        files: Sequence[str | Path] | Mapping[str, bytes],
        *,
        namespace: str | None = None,
        chunk_tokens: int | None = None,
        idempotency_key: str | None = None,
    ) -> FileReport:
        """Send files, by path or as bytes by name, which the server reads, cuts and adds."""
        return self._send(self._calls.add_files(content_of(files), namespace, chunk_tokens, idempotency_key))

    def get(
        self,
        ids: Sequence[str] | None = None,
        *,
        where: Where | None = None,
        namespace: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Document]:
        """Return documents in the order of `ids`, without ids in the order of adding; unknown ids are ignored."""
        check_page(limit, offset)
        if ids is not None:
            named: list[Document] = []
            for part in in_address(ids):
                page, _ = self._send(self._calls.get(part, where, namespace, len(part), 0))
                named += page
            return named[offset : None if limit is None else offset + limit]
        found: list[Document] = []
        position: int | None = offset
        while position is not None and (limit is None or len(found) < limit):
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page, position = self._send(self._calls.get(None, where, namespace, size, position))
            found += page
        return found

    def delete(self, ids: Sequence[str] | None = None, *, where: Where | None = None, namespace: str | None = None) -> int:
        """Remove documents by id, or those that fit `where`, or both at once, and return how many were removed."""
        if ids is None:
            return self._send(self._calls.delete(None, where, namespace))
        removed = 0
        for part in in_address(ids):
            removed += self._send(self._calls.delete(part, where, namespace))
        return removed

    def clear(self, *, namespace: str | None = None) -> int:
        """Remove every document of a namespace, and return how many there were."""
        return self._send(self._calls.clear(namespace))

    @overload
    def search(self, query: str, k: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]: ...

    @overload
    def search(
        self, query: list[str] | tuple[str, ...], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...

    def search(
        self, query: str | Sequence[str], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit] | list[list[Hit]]:
        """Return the k best documents for a query, best first; a list of queries gives a list of lists."""
        if isinstance(query, str):
            return self._send(self._calls.search(query, k, options))
        return [self._send(self._calls.search(text, k, options)) for text in checked_texts(query, "query")]

    def namespaces(self) -> dict[str, int]:
        """Return the number of documents in each namespace that the key sees."""
        return self._send(self._calls.namespaces())

    def info(self) -> dict[str, Any]:
        """Return what the index holds and how it is searched."""
        return self._send(self._calls.info())

    # -- answers, and what the model does by itself

    def answer(
        self, question: str, k: int = 5, *, max_tokens: int = 256, **options: Unpack[SearchOptions]
    ) -> WrittenAnswer:
        """Return an answer that the server's model writes from the hits of a question."""
        return self._send(self._calls.answer(question, k, max_tokens, options))

    def stream_answer(
        self, question: str, k: int = 5, *, max_tokens: int = 256, **options: Unpack[SearchOptions]
    ) -> Iterator[str]:
        """Yield the answer to a question in pieces, as it is written."""
        call = self._calls.answer(question, k, max_tokens, options, stream=True)
        name = ""
        try:
            with self._http.stream(call.method, call.path, **call.arguments) as response:
                if not response.is_success:
                    raise refused(response.status_code, response.read())
                for name, value in events(response.iter_lines()):
                    if name == "error":
                        raise ServerError(value["error"]["message"], value["error"]["code"])
                    if name == "text":
                        yield value["text"]
        except httpx.HTTPError as error:
            raise call.lost(error) from error
        if name != "answer":
            raise call.lost(None)

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Return one unit vector a query, `(n, dimension) float32`."""
        return self._embedded(texts, "query")

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return one unit vector a document, `(n, dimension) float32`."""
        return self._embedded(texts, "document")

    def rerank(self, query: str, texts: Sequence[str], top_n: int | None = None) -> list[tuple[int, float]]:
        """Return texts by position with their scores, best first."""
        return self._send(self._calls.rerank(query, texts, top_n))

    # -- the server's indexes

    def indexes(self) -> dict[str, int]:
        """Return the number of documents of each index that the key sees."""
        return self._send(self._calls.indexes())

    def access(self) -> dict[str, Any]:
        """Return what the key may do: write, in which indexes and namespace; and whether the server reranks and answers."""
        return self._send(self._calls.access())

    def create_index(self, name: str, **options: Unpack[IndexOptions]) -> dict[str, Any]:
        """Make an empty index on the server, and return its description."""
        return self._send(self._calls.create_index(name, options))

    def remove_index(self, name: str) -> None:
        """Remove an index of the server with all its documents."""
        self._send(self._calls.remove_index(name))

    def _embedded(self, texts: Sequence[str], role: Role) -> Float32Array:
        parts = [
            self._send(self._calls.embed(texts[begin : begin + TOGETHER], role))
            for begin in range(0, max(len(texts), 1), TOGETHER)
        ]
        return np.concatenate(parts)

    def _send(self, call: Call[Result]) -> Result:
        try:
            response = self._http.request(call.method, call.path, **call.arguments)
        except httpx.HTTPError as error:
            raise call.lost(error) from error
        if not response.is_success:
            raise refused(response.status_code, response.content)
        return call.read(response.content)
