"""What an index tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.fitting import fallbacks, views_of
from tp_retrieval.indexing.vectors.kinds import Tuning
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds, what made it, and how its vectors are searched.

    `maps_digest` tells fitted maps from others: vectors of different ones can't be compared. `growth` is how many times as
    many documents there are as the maps were fitted on. `fallbacks` says which views got a lesser map than so many
    documents usually have, and why. `tuning` is None for exact search.
    """

    path: str
    documents: int
    dimension: int
    kind: str
    tuning: Tuning | None
    tokenizer: str
    model: str | None
    source: str | None
    revision: str | None
    fingerprint: str
    recipe: Mapping[str, Any] | None
    postprocess: tuple[str, ...]
    fitted: tuple[str, ...]
    fitted_on: int
    fallbacks: tuple[str, ...]
    maps_digest: str
    growth: float | None
    libraries: Mapping[str, str]
    bytes_on_disk: int


def describe(folder: Path, store: Store, vectors: SyncedVectors) -> IndexInfo:
    """Return what an index holds, what made it, and how its vectors are searched."""
    provenance = store.meta.get("provenance") or {}
    maps = store.maps.all()
    count = len(store.documents)
    fitted_on = min((fitted.fitted_on for fitted in maps), default=0)
    return IndexInfo(
        path=str(folder),
        documents=count,
        dimension=int(store.meta.get("dimension")),
        kind=store.meta.get("vectors")["kind"],
        tuning=vectors.tuning,
        tokenizer=store.meta.get("tokenizer"),
        model=provenance.get("model"),
        source=provenance.get("source"),
        revision=provenance.get("revision"),
        fingerprint=store.meta.get("fingerprint"),
        recipe=provenance.get("recipe"),
        postprocess=tuple(view.postprocess for view in views_of(store)),
        fitted=tuple(fitted.postprocess for fitted in maps),
        fitted_on=fitted_on,
        fallbacks=tuple(fallbacks(store)),
        maps_digest=vectors.maps_digest(),
        growth=round(count / fitted_on, 2) if fitted_on else None,
        libraries=store.meta.get("libraries"),
        bytes_on_disk=store.database.size() + vectors.size(),
    )
