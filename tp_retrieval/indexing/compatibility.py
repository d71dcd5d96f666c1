"""Which embedder made an index: loading it again, refusing another, and fingerprints that earlier versions stored.

A stored fingerprint of format 1 is compared with the one of format 1 that the embedder had, and replaced if they are equal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from tp_retrieval.embedding.maps.affine import same_vectors
from tp_retrieval.errors import IncompatibleIndexError, IndexAccessError, IndexLockedError
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.types import (
    FORMAT_2,
    HasLegacyIdentity,
    HasProvenance,
    Identity,
    Provenance,
    TextEmbedder,
)

logger = logging.getLogger(__name__)


def load_embedder(stored: Mapping[str, Any]) -> TextEmbedder:
    """Load the model that an index names, with its recipe."""
    from tp_retrieval.embedding.embedder import Embedder
    from tp_retrieval.embedding.normalized import UnitEmbedder
    from tp_retrieval.embedding.recipe import Recipe

    embedder = Embedder.from_pretrained(
        stored["source"],
        recipe=Recipe.from_dict(stored["recipe"]),
        revision=stored["revision"],
        dtype=stored["dtype"],
    )
    return UnitEmbedder.of(embedder) if stored.get("unit") else embedder


def check_embedder(
    embedder: TextEmbedder, *, path: object, dimension: int, fingerprint: str, provenance: Mapping[str, Any] | None
) -> None:
    """Raise `IncompatibleIndexError` naming each field in which an embedder differs from the one that made an index."""
    own_fingerprint, own_provenance = _identity(embedder, fingerprint)
    if own_fingerprint == fingerprint and embedder.dimension == dimension:
        return
    stored: dict[str, Any] = {"dimension": dimension}
    given: dict[str, Any] = {"dimension": embedder.dimension}
    if provenance is not None and own_provenance is not None:
        stored |= _comparable(Provenance(**provenance))
        given |= _comparable(own_provenance)
    differ = [key for key in sorted(stored.keys() | given.keys()) if stored.get(key) != given.get(key)]
    if not differ:
        differ, stored, given = ["fingerprint"], {"fingerprint": fingerprint}, {"fingerprint": own_fingerprint}
    named = "; ".join(f"{k}: stored {json.dumps(stored.get(k))}, given {json.dumps(given.get(k))}" for k in differ)
    raise IncompatibleIndexError(f"{path} was made by another embedder ({named}); open it with the one that made it")


def renew(store: Store, embedder: TextEmbedder) -> None:
    """Replace an index's fingerprint of format 1 by its embedder's, after `check_embedder`.

    Models whose vectors differ can share one of format 1, so that a document is embedded again first. Where its vector is
    another, another process writes, or the place is read-only, the index keeps what it has.
    """
    old = store.meta.get("fingerprint")
    if old == embedder.fingerprint or not _gives_the_same(store, embedder):
        return
    try:
        with store.database.impatient(), store.transaction():
            if store.meta.get("fingerprint") != old:  # another process was faster
                return
            store.meta.set("fingerprint", embedder.fingerprint)
            provenance = store.meta.get("provenance")
            if provenance is not None and isinstance(embedder, HasProvenance):
                store.meta.set("provenance", provenance | {"weights": embedder.provenance.weights})
    except (IndexAccessError, IndexLockedError) as error:
        logger.info("%s keeps its fingerprint of format 1 for now (%s)", store.file, error)


def _gives_the_same(store: Store, embedder: TextEmbedder) -> bool:
    """Return whether the embedder gives the first document the vector that is stored; True where there is none."""
    with store.snapshot():
        seqs = store.documents.seqs()[:1]
        stored = store.documents.vectors_of(seqs)
        texts = [document.text for document in store.documents.by_seq(seqs.tolist()).values()]
    return not texts or same_vectors(embedder.embed_documents(texts), stored)


def made_by_one(stored: str, given: str, load: Callable[[], TextEmbedder]) -> bool:
    """Return whether two fingerprints are one embedder's, which is loaded only to compare a format 1 with a format 2."""
    if stored == given:
        return True
    old, new = (stored, given) if _is_format_1(stored) else (given, stored)
    if not (_is_format_1(old) and str(new).startswith(FORMAT_2)):
        return False
    embedder = load()
    return embedder.fingerprint == new and _identity(embedder, old)[0] == old


def _identity(embedder: TextEmbedder, fingerprint: str) -> tuple[str, Provenance | None]:
    """Return an embedder's fingerprint and provenance in the format of another fingerprint."""
    if _is_format_1(fingerprint) and isinstance(embedder, HasLegacyIdentity):
        legacy: Identity = embedder.legacy_identity()
        return legacy.fingerprint, legacy.provenance
    return embedder.fingerprint, embedder.provenance if isinstance(embedder, HasProvenance) else None


def _is_format_1(fingerprint: object) -> bool:
    return isinstance(fingerprint, str) and re.fullmatch("[0-9a-f]{32}", fingerprint) is not None


def _comparable(provenance: Provenance) -> dict[str, Any]:
    """Return what decides a raw vector, one level deep. Maps and weights do not: the index has its own."""
    recipe = dict(provenance.recipe)
    recipe.pop("dense_weight", None)
    views = [{"exit": view["exit"], "readout": view["readout"]} for view in recipe.pop("views")]
    named = {name: getattr(provenance, name) for name in ("model", "revision", "weights", "unit")}
    return {**named, "recipe.views": views, **{f"recipe.{key}": value for key, value in recipe.items()}}
