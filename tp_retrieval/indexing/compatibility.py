"""The embedder that an index was made with: loading it, refusing another one, and fingerprints of earlier versions.

A stored fingerprint of format 1 is compared with the embedder's own of format 1, and replaced if they are equal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from tp_retrieval.caching import CachedEmbedder
from tp_retrieval.embedding.maps.affine import AffineMap, combine, same_vectors
from tp_retrieval.errors import IncompatibleIndexError, IndexAccessError, IndexLockedError
from tp_retrieval.indexing.storage.meta import IndexMeta
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.types import (
    FORMAT_2,
    Float32Array,
    HasLegacyIdentity,
    HasProvenance,
    Identity,
    Provenance,
    TextEmbedder,
)

logger = logging.getLogger(__name__)

_BATCH = 1024  # vectors scaled at once, in float64
_ROUNDING = 1e-5  # by which a component changes where a vector of unit length is normalised again


class ModelLoading(TypedDict, total=False):
    """How the model of an index is loaded, where it should not be as the index says: arguments of `from_pretrained`."""

    device: str | None
    dtype: str | None
    model_kwargs: Mapping[str, Any] | None


def load_embedder(stored: Provenance, **loading: Unpack[ModelLoading]) -> TextEmbedder:
    """Load the model of an index's provenance, with its recipe and as it was loaded then."""
    from tp_retrieval.embedding.model.settings import EmbedderSettings
    from tp_retrieval.embedding.normalized import UnitEmbedder

    embedder = EmbedderSettings.stored(stored, **loading).load()
    return UnitEmbedder.of(embedder) if stored.unit else embedder


def scaled_like(embedder: TextEmbedder, meta: IndexMeta) -> TextEmbedder:
    """Return an embedder, or the one of its model whose views have the lengths of an index: unit length is no identity."""
    if not isinstance(embedder, HasProvenance) or embedder.fingerprint == meta.fingerprint:
        return embedder
    stored = meta.provenance
    if stored is not None:
        return _scaled(embedder, unit=stored.unit)
    other = _scaled(embedder, unit=not embedder.provenance.unit)
    return other if other.fingerprint == meta.fingerprint else embedder


def _scaled(embedder: TextEmbedder, *, unit: bool) -> TextEmbedder:
    from tp_retrieval.embedding.embedder import Embedder
    from tp_retrieval.embedding.normalized import scaled

    if isinstance(embedder, CachedEmbedder) and isinstance(embedder.embedder, Embedder):
        inner = scaled(embedder.embedder, unit=unit)
        return embedder if inner is embedder.embedder else CachedEmbedder(inner, embedder.path)
    return scaled(embedder, unit=unit) if isinstance(embedder, Embedder) else embedder


def with_stored_lengths(raw: Float32Array, stored: Provenance | None) -> Float32Array:
    """Scale raw vectors `(n, dimension)` in place to views of unit length if the index holds such, and return them.

    The reverse is impossible: views of unit length have lost the lengths that a map subtracts a mean from.
    """
    if stored is None or not stored.unit:
        return raw
    for begin in range(0, len(raw), _BATCH):
        part = raw[begin : begin + _BATCH]
        scaled = combine(part, stored.views, [AffineMap()] * len(stored.views))
        if not np.allclose(part, scaled, rtol=0, atol=_ROUNDING):  # else they would change in their last bits
            part[:] = scaled
    return raw


def check_embedder(embedder: TextEmbedder, path: Path, meta: IndexMeta) -> None:
    """Raise `IncompatibleIndexError` naming each field in which an embedder differs from the one of an index."""
    fingerprint, provenance = _identity(embedder, meta.fingerprint)
    if fingerprint == meta.fingerprint and embedder.dimension == meta.dimension:
        return
    stored: dict[str, Any] = {"dimension": meta.dimension}
    present: dict[str, Any] = {"dimension": embedder.dimension}
    if meta.provenance is not None and provenance is not None:
        stored |= _comparable(meta.provenance)
        present |= _comparable(provenance)
    differ = [key for key in sorted(stored.keys() | present.keys()) if stored.get(key) != present.get(key)]
    if not differ:
        differ, stored, present = ["fingerprint"], {"fingerprint": meta.fingerprint}, {"fingerprint": fingerprint}
    named = "; ".join(f"{k}: stored {json.dumps(stored.get(k))}, given {json.dumps(present.get(k))}" for k in differ)
    raise IncompatibleIndexError(f"{path} was made by another embedder ({named}); open it with the one that made it")


def upgrade_fingerprint(store: Store, embedder: TextEmbedder) -> None:
    """Replace an index's fingerprint of format 1 by its embedder's, after `check_embedder`.

    Models whose vectors differ can share one of format 1, so one document is embedded again first. The index keeps its
    fingerprint where that vector differs, another process writes, or the folder is read-only.
    """
    old = store.meta.read().fingerprint
    if old == embedder.fingerprint or not _computes_stored_vector(store, embedder):
        return
    try:
        with store.database.impatient(), store.transaction():
            meta = store.meta.read()
            if meta.fingerprint != old:  # another process was faster
                return
            provenance = meta.provenance
            if provenance is not None and isinstance(embedder, HasProvenance):
                provenance = replace(provenance, weights=embedder.provenance.weights)
            store.meta.write(replace(meta, fingerprint=embedder.fingerprint, provenance=provenance))
    except (IndexAccessError, IndexLockedError) as error:
        logger.info("%s keeps its fingerprint of format 1 for now (%s)", store.file, error)


def _computes_stored_vector(store: Store, embedder: TextEmbedder) -> bool:
    """Return whether the embedder computes the first document's stored vector; True for an empty index."""
    with store.snapshot():
        seqs = store.documents.seqs()[:1]
        stored = store.documents.vectors_of(seqs)
        texts = [document.text for document in store.documents.by_seq(seqs.tolist()).values()]
    return not texts or same_vectors(embedder.embed_documents(texts), stored)


def same_embedder(stored: str, other: str, load: Callable[[], TextEmbedder]) -> bool:
    """Return whether two fingerprints are one embedder's; it is loaded only to compare one of format 1 with one of 2."""
    if stored == other:
        return True
    old, new = (stored, other) if _is_format_1(stored) else (other, stored)
    if not (_is_format_1(old) and str(new).startswith(FORMAT_2)):
        return False
    embedder = load()
    return embedder.fingerprint == new and _identity(embedder, old)[0] == old


def same_embedder_or_raw(stored: str, other: str, provenance: Provenance | None, load: Callable[[], TextEmbedder]) -> bool:
    """Return whether a fingerprint is the stored embedder's, or that of its raw vectors where it gives unit ones."""
    if same_embedder(stored, other, load):
        return True
    if provenance is None or not provenance.unit:
        return False
    raw = _scaled(load(), unit=False)
    return same_embedder(raw.fingerprint, other, lambda: raw)


def _identity(embedder: TextEmbedder, fingerprint: str) -> tuple[str, Provenance | None]:
    """Return an embedder's fingerprint and provenance in the format of another fingerprint."""
    if _is_format_1(fingerprint) and isinstance(embedder, HasLegacyIdentity):
        legacy: Identity = embedder.legacy_identity()
        return legacy.fingerprint, legacy.provenance
    return embedder.fingerprint, embedder.provenance if isinstance(embedder, HasProvenance) else None


def _is_format_1(fingerprint: object) -> bool:
    return isinstance(fingerprint, str) and re.fullmatch("[0-9a-f]{32}", fingerprint) is not None


def _comparable(provenance: Provenance) -> dict[str, Any]:
    """Return the fields that decide a raw vector, one level deep. Maps and view weights do not: the index has its own."""
    recipe = dict(provenance.recipe)
    recipe.pop("dense_weight", None)
    views = [{name: view.get(name) for name in ("exit", "readout")} for view in recipe.pop("views", [])]
    fields = {name: getattr(provenance, name) for name in ("model", "revision", "weights", "unit")}
    return {**fields, "recipe.views": views, **{f"recipe.{key}": value for key, value in recipe.items()}}
