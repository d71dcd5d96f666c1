"""What stands around a document in its file: the chunks before and after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from tp_retrieval.indexing.search.filters import parsed
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.types import Document

Expand = int | Literal["section"]
"""How many chunks before and after, or all that stand under the same headings, of these at most 64 before and after."""

MOST_EXPANDED = 1_000
"""Chunks before and after a hit that can be asked for."""
_WINDOW = 16  # chunks of a section that are read at once, before and after
_LONGEST = 64


def around(store: Store, document: Document, expand: Expand, namespace: str) -> tuple[Document, ...]:
    """Return the chunks around one of a file, itself among them, in their order; empty for a document of no file."""
    path, chunk = document.metadata.get("path"), document.metadata.get("chunk")
    if not isinstance(path, str) or not isinstance(chunk, int):
        return ()
    if expand != "section":
        numbers = range(chunk - expand, chunk + expand + 1)
        return tuple(_unbroken(_chunks(store, namespace, path, numbers), chunk, None))
    width = _WINDOW
    while True:
        chunks = _chunks(store, namespace, path, range(chunk - width, chunk + width + 1))
        found = tuple(_unbroken(chunks, chunk, document))
        if len(found) < width or width == _LONGEST:  # it ends on both sides
            return found
        width *= 2


def _chunks(store: Store, namespace: str, path: str, numbers: Iterable[int]) -> dict[int, Document]:
    """Return chunks of a file of a namespace by number."""
    condition = parsed({"path": path, "chunk": {"$in": [number for number in numbers if number >= 0]}})
    seqs = store.select(condition, namespace=namespace)
    documents = store.documents.by_seq([] if seqs is None else seqs.tolist()).values()
    return {document.metadata["chunk"]: document for document in documents}


def _unbroken(chunks: dict[int, Document], chunk: int, section: Document | None) -> Iterable[Document]:
    """Return the chunks next to one another, up to a gap, and up to where the headings of `section` end."""
    headings: Any = None if section is None else section.metadata.get("headings")

    def belongs(number: int) -> bool:
        return number in chunks and (section is None or chunks[number].metadata.get("headings") == headings)

    first = last = chunk
    while belongs(first - 1):
        first -= 1
    while belongs(last + 1):
        last += 1
    return [chunks[number] for number in range(first, last + 1) if number in chunks]
