"""The contents and settings of an index, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tp_retrieval.indexing.storage.meta import FileSettings, Tuning
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.fitting import fallbacks, unread_counts
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds, what made it, and how its vectors are searched.

    `maps_digest` identifies the fitted maps: vectors mapped by different ones can't be compared. `growth` is the number of
    documents over the number that the maps were fitted on. `fallbacks` says which views have a lesser map than so many
    documents usually allow, and why. `unread` is the number of documents of which the model must read stretches for a
    map, which `Index.rebuild` does. `tuning` is None for exact search. `raw` is the precision that
    raw vectors are stored in. `namespaces` are the documents of each one, `files` how files were read into each one.
    """

    path: str
    documents: int
    dimension: int
    kind: str
    tuning: Tuning | None
    tokenizer: str
    raw: str
    model: str | None
    source: str | None
    revision: str | None
    fingerprint: str
    recipe: Mapping[str, Any] | None
    postprocess: tuple[str, ...]
    fitted: tuple[str, ...]
    fitted_on: int
    fallbacks: tuple[str, ...]
    unread: int
    maps_digest: str
    growth: float | None
    libraries: Mapping[str, str]
    bytes_on_disk: int
    namespaces: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, FileSettings] = field(default_factory=dict)


def describe(folder: Path, store: Store, vectors: SyncedVectors) -> IndexInfo:
    """Return what an index holds, what made it, and how its vectors are searched."""
    meta = store.meta.read()
    made_by = meta.provenance
    maps = store.maps.all()
    namespaces, unread = store.documents.namespaces(), unread_counts(store)
    count = sum(namespaces.values())
    fitted_on = min((fitted.fitted_on for fitted in maps), default=0)
    return IndexInfo(
        path=str(folder),
        documents=count,
        dimension=meta.dimension,
        kind=meta.vectors.kind,
        tuning=vectors.tuning,
        tokenizer=meta.tokenizer,
        raw=meta.raw,
        model=None if made_by is None else made_by.model,
        source=None if made_by is None else made_by.source,
        revision=None if made_by is None else made_by.revision,
        fingerprint=meta.fingerprint,
        recipe=None if made_by is None else made_by.recipe,
        postprocess=tuple(view.postprocess for view in meta.views),
        fitted=tuple(fitted.postprocess for fitted in maps),
        fitted_on=fitted_on,
        fallbacks=tuple(fallbacks(store, unread)),
        unread=max(unread.values(), default=0),
        maps_digest=vectors.maps_digest(),
        growth=round(count / fitted_on, 2) if fitted_on else None,
        libraries=meta.libraries,
        bytes_on_disk=store.database.size() + vectors.size(),
        namespaces=namespaces,
        files=meta.files,
    )
