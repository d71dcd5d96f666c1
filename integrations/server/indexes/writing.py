"""Documents that clients send: checked, compared with what is there, embedded a few at a time, and stored.

written = upsert(index, documents, namespace="alice", stored=job.count)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.metadata_json import to_json
from tp_retrieval.indexing.validation import prepared

TOGETHER = 64
"""Documents that are embedded and stored at once, so that searches wait for no more."""


@dataclass(frozen=True)
class Written:
    """What became of documents: their ids in the order given, and how many were new or changed, and how many not."""

    ids: list[str]
    added: int
    unchanged: int


def upsert(
    index: Index,
    documents: Sequence[Document],
    namespace: str,
    *,
    stored: Callable[[int], object] | None = None,
) -> Written:
    """Add documents, or replace those of the same id; one that is there as it is given is not embedded again.

    Each part is durable before the next one begins, so that documents that are sent again after an error go on where it
    was. `stored` is called with the number of each part. Raises `InputError` before anything is added.
    """
    rows = prepared(documents, namespace)
    added = 0
    for begin in range(0, len(rows), TOGETHER):
        part = rows[begin : begin + TOGETHER]
        there = {
            document.id: (document.text, to_json(dict(document.metadata)))
            for document in index.get([row.id for row in part], namespace=namespace)
        }
        changed = [row for row in part if there.get(row.id) != (row.text, row.metadata_json)]
        if changed:
            index.add([Document(row.text, row.metadata, row.id) for row in changed], namespace=namespace)
        added += len(changed)
        if stored is not None:
            stored(len(part))
    return Written([row.id for row in rows], added, len(rows) - added)


def with_ids(documents: Sequence[Document], key: str | None, first: int = 0) -> list[Document]:
    """Return documents of which those without an id have one made of an idempotency key and their place, from `first`."""
    if key is None:
        return list(documents)
    return [
        document if document.id is not None else replace(document, id=f"{key}-{place}")
        for place, document in enumerate(documents, first)
    ]


def check_key(key: str | None) -> str | None:
    """Return an idempotency key; raise `InputError` for one that is empty or long."""
    if key is not None and not 0 < len(key) <= 255:
        raise InputError("Idempotency-Key: must be 1 to 255 characters")
    return key
