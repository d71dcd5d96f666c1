"""Which embedder made an index: loading it again, and refusing another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tp_retrieval.errors import IncompatibleIndexError
from tp_retrieval.types import HasProvenance, Provenance, TextEmbedder


def load_embedder(stored: Mapping[str, Any]) -> TextEmbedder:
    """Load the model that an index names, with its recipe."""
    from tp_retrieval.embedding.embedder import Embedder
    from tp_retrieval.embedding.recipe import Recipe
    from tp_retrieval.embedding.unit import UnitEmbedder

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
    if embedder.fingerprint == fingerprint and embedder.dimension == dimension:
        return
    stored: dict[str, Any] = {"dimension": dimension}
    given: dict[str, Any] = {"dimension": embedder.dimension}
    if provenance is not None and isinstance(embedder, HasProvenance):
        stored |= _comparable(Provenance(**provenance))
        given |= _comparable(embedder.provenance)
    differ = [key for key in sorted(stored.keys() | given.keys()) if stored.get(key) != given.get(key)]
    if not differ:
        differ, stored, given = ["fingerprint"], {"fingerprint": fingerprint}, {"fingerprint": embedder.fingerprint}
    named = "; ".join(f"{k}: stored {json.dumps(stored.get(k))}, given {json.dumps(given.get(k))}" for k in differ)
    raise IncompatibleIndexError(f"{path} was made by another embedder ({named}); open it with the one that made it")


def _comparable(provenance: Provenance) -> dict[str, Any]:
    """Return what decides a raw vector, one level deep. Maps and weights do not: the index has its own."""
    recipe = dict(provenance.recipe)
    recipe.pop("dense_weight", None)
    views = [{"exit": view["exit"], "readout": view["readout"]} for view in recipe.pop("views")]
    named = {name: getattr(provenance, name) for name in ("model", "revision", "weights", "unit")}
    return {**named, "recipe.views": views, **{f"recipe.{key}": value for key, value in recipe.items()}}
