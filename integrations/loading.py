"""Loading an embedder from the settings that every framework's adapter has."""

from __future__ import annotations

from threading import Lock
from typing import Any

from tp_retrieval import CachedEmbedder, Embedder, InputError, Recipe
from tp_retrieval.embedding.normalized import UnitEmbedder

SETTINGS = ("recipe", "device", "dtype", "revision", "local_files_only", "trust_remote_code", "model_kwargs")
"""Fields of an adapter that `Embedder.from_pretrained` takes by the same name."""


def settings_of(embedder: Embedder) -> dict[str, Any]:
    """Return the model and the `SETTINGS` from which another process loads an embedder that is here already."""
    backbone = embedder.backbone
    settings = {"device": str(backbone.device), "dtype": str(backbone.dtype).removeprefix("torch.")}
    if embedder.folder is not None:
        settings |= {"model": str(embedder.folder), "recipe": None}
    else:
        settings |= {"model": backbone.origin, "recipe": embedder.recipe.to_dict()}
    if backbone.source is not None:
        source = backbone.source
        settings |= {
            "revision": source.revision,
            "local_files_only": source.local_files_only,
            "trust_remote_code": source.trust_remote_code,
            "model_kwargs": dict(source.model_kwargs),
        }
    return settings


class LazyEmbedder:
    """The embedder of unit vectors that an adapter's settings describe, loaded when it is first asked for."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = None if embedder is None else UnitEmbedder.of(embedder)
        self._cached: CachedEmbedder | None = None
        self._lock = Lock()

    def get(self, adapter: Any, model: str | None) -> Embedder | CachedEmbedder:
        """Return the embedder, behind the adapter's cache if it names one; an adapter's recipe may be a dict."""
        with self._lock:
            if self._embedder is None:
                settings = {name: getattr(adapter, name) for name in SETTINGS}
                if isinstance(settings["recipe"], dict):
                    settings["recipe"] = Recipe.from_dict(settings["recipe"])
                self._embedder = UnitEmbedder.of(Embedder.from_pretrained(model, **settings))
            if adapter.cache is None:
                return self._embedder
            if self._cached is None:
                self._cached = CachedEmbedder(self._embedder, adapter.cache)
            return self._cached

    def check_portable(self) -> None:
        """Raise `InputError` if another process could not load the embedder from settings."""
        if self._embedder is not None and self._embedder.fitted and self._embedder.folder is None:
            raise InputError("its maps are in this process's memory alone; save the embedder, and load it from its folder")
