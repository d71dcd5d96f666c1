"""What every adapter loads: an embedder of unit vectors, from its settings."""

from __future__ import annotations

from typing import Any

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.unit import UnitEmbedder

SETTINGS = ("recipe", "device", "dtype", "revision", "local_files_only", "trust_remote_code", "model_kwargs")
"""Fields of an adapter that `Embedder.from_pretrained` takes by the same name."""


def load(adapter: Any, model: str | None) -> Embedder:
    """Return the embedder of unit vectors that an adapter's settings describe; its recipe may be given as a dict."""
    settings = {name: getattr(adapter, name) for name in SETTINGS}
    if isinstance(settings["recipe"], dict):
        settings["recipe"] = Recipe.from_dict(settings["recipe"])
    return UnitEmbedder.of(Embedder.from_pretrained(model, **settings))
