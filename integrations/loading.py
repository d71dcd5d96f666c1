"""What every adapter loads: an embedder of unit vectors, from its settings."""

from __future__ import annotations

from threading import Lock
from typing import Any

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.unit import UnitEmbedder

SETTINGS = ("recipe", "device", "dtype", "revision", "local_files_only", "trust_remote_code", "model_kwargs")
"""Fields of an adapter that `Embedder.from_pretrained` takes by the same name."""


class LazyEmbedder:
    """The embedder of unit vectors that an adapter's settings describe, loaded when it is first asked for."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = None if embedder is None else UnitEmbedder.of(embedder)
        self._lock = Lock()

    def get(self, adapter: Any, model: str | None) -> Embedder:
        """Return the embedder; an adapter's recipe may be a dict."""
        with self._lock:
            if self._embedder is None:
                settings = {name: getattr(adapter, name) for name in SETTINGS}
                if isinstance(settings["recipe"], dict):
                    settings["recipe"] = Recipe.from_dict(settings["recipe"])
                self._embedder = UnitEmbedder.of(Embedder.from_pretrained(model, **settings))
            return self._embedder
