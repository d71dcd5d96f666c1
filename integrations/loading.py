"""Loading an embedder from an adapter's settings, when its first vector is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Protocol

from tp_retrieval import CachedEmbedder, Embedder, InputError, Recipe
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.embedding.normalized import UnitEmbedder


class EmbedderFields(Protocol):
    """The fields of an adapter that are arguments of `Embedder.from_pretrained`."""

    recipe: str | dict[str, object] | None
    dtype: str
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    model_kwargs: dict[str, object]


def loaded_from(model: object, tokenizer: object, recipe: str | Mapping[str, object] | None) -> Embedder | None:
    """Return the embedder of a model in memory; None where `model` is a name, a path or nothing, to be loaded later."""
    if model is None or isinstance(model, (str, Path)):
        return None
    of_recipe = Recipe.from_dict(recipe) if isinstance(recipe, Mapping) else recipe
    return Embedder.from_model(model, tokenizer, recipe=of_recipe)  # type: ignore[arg-type]


def settings_of(adapter: EmbedderFields, model: str | None, device: str | None) -> EmbedderSettings:
    """Return the settings that an adapter's fields describe."""
    return EmbedderSettings(
        model=model,
        recipe=adapter.recipe,
        device=device,
        dtype=adapter.dtype,
        revision=adapter.revision,
        local_files_only=adapter.local_files_only,
        trust_remote_code=adapter.trust_remote_code,
        model_kwargs=adapter.model_kwargs,
    )


class LazyEmbedder:
    """The embedder of unit vectors that an adapter's settings describe, loaded by the first call that needs it."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = None if embedder is None else UnitEmbedder.of(embedder)
        self._cached: CachedEmbedder | None = None
        self._lock = Lock()

    def get(self, settings: EmbedderSettings, cache: str | None) -> Embedder | CachedEmbedder:
        """Return the embedder, behind a `CachedEmbedder` if a cache's file is named."""
        with self._lock:
            if self._embedder is None:
                self._embedder = UnitEmbedder.of(settings.load())
            if cache is None:
                return self._embedder
            if self._cached is None:
                self._cached = CachedEmbedder(self._embedder, cache)
            return self._cached

    def check_portable(self) -> None:
        """Raise `InputError` if another process could not load the embedder from settings, or would load other weights."""
        if self._embedder is not None and self._embedder.backbone.source is None:
            raise InputError("its model is in this process's memory alone; make the adapter with the model's name")
        if self._embedder is not None and self._embedder.fitted and self._embedder.folder is None:
            raise InputError("its maps are in this process's memory alone; save the embedder, and load it from its folder")
