"""Loading a model from an adapter's settings, when its first vector or word is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from tp_retrieval import CachedEmbedder, Embedder, Index, InputError, Recipe
from tp_retrieval.answering.writer import TextWriter
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.types import HasProvenance, TextEmbedder


class EmbedderFields(Protocol):
    """The fields of an adapter that are arguments of `Embedder.from_pretrained`."""

    recipe: str | dict[str, object] | None
    dtype: str
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    model_kwargs: dict[str, object]

    @property
    def device(self) -> str | None:
        """Where to run; None is the best there is."""


class LoadingFields(BaseModel):
    """The same as fields of pydantic, which the adapters of LangChain and LlamaIndex are made of."""

    recipe: str | dict[str, object] | None = Field(default=None, description="Name, file or JSON of a recipe.")
    device: str | None = Field(default=None, description="Where to run; by default the best there is.")
    dtype: str = Field(default="auto", description="Type to compute in.")
    revision: str | None = Field(default=None, description="Revision on the hub.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with a model.")
    model_kwargs: dict[str, object] = Field(default_factory=dict, description="Passed to transformers as they are.")

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def with_model(fields: Mapping[str, Any]) -> tuple[dict[str, Any], Embedder | None]:
    """Return the fields of an adapter, and the embedder of a model in memory, None for one that is loaded later.

    `model`, or `model_name`, is a name or a path, or a model in memory as `Embedder.from_model` takes it, with `tokenizer`.
    """
    fields = {**fields}
    tokenizer, name = fields.pop("tokenizer", None), fields.pop("model_name", None)
    model = fields.pop("model", None) or name
    if model is None:
        return fields, None
    if isinstance(model, (str, Path)):
        return {**fields, "model_name": str(model)}, None
    recipe = fields.pop("recipe", None)
    of_recipe = Recipe.from_dict(recipe) if isinstance(recipe, Mapping) else recipe
    embedder = Embedder.from_model(model, tokenizer, recipe=of_recipe)
    return {**fields, **fields_of(embedder)}, embedder


def fields_of(embedder: Embedder) -> dict[str, Any]:
    """Return the fields of an adapter that another process loads the same embedder from."""
    settings = EmbedderSettings.of(embedder).to_dict()
    return {"model_name" if name == "model" else name: value for name, value in settings.items()}


def is_scaled_otherwise(index: Index, embedder: TextEmbedder | None) -> bool:
    """Return whether an index holds vectors of the same model with views of other lengths, so that texts are needed."""
    return (
        isinstance(embedder, HasProvenance)
        and isinstance(index.embedder, HasProvenance)
        and embedder.provenance.unit != index.embedder.provenance.unit
    )


def settings_of(adapter: EmbedderFields, model: str | None) -> EmbedderSettings:
    """Return the settings that an adapter's fields describe."""
    return EmbedderSettings(
        model=model,
        recipe=adapter.recipe,
        device=adapter.device,
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

    def __reduce__(self) -> tuple[type[LazyEmbedder], tuple[()]]:
        """Pickle nothing of the embedder: another process loads it from the adapter's settings."""
        self.check_portable()
        return LazyEmbedder, ()

    def check_portable(self) -> None:
        """Raise `InputError` if another process could not load the embedder from settings, or would load other weights."""
        check_named(self._embedder)
        if self._embedder is not None and self._embedder.fitted and self._embedder.folder is None:
            raise InputError("its maps are in this process's memory alone; save the embedder, and load it from its folder")


def check_named(embedder: Embedder | None) -> None:
    """Raise `InputError` for a model in this process's memory, which another process could not load."""
    if embedder is not None and embedder.backbone.source is None:
        raise InputError("its model is in this process's memory alone; make the adapter with the model's name")


class LazyWriter:
    """The language model that an adapter's settings describe, loaded whole by the first call that needs it."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._writer: TextWriter | None = None
        self._lock = Lock()

    def get(self, settings: EmbedderSettings) -> TextWriter:
        """Return the writer."""
        with self._lock:
            if self._writer is None:
                embedder = self._embedder or replace(settings, whole=True).load()
                self._writer = TextWriter(embedder.backbone.language_model())
            return self._writer

    def __reduce__(self) -> tuple[type[LazyWriter], tuple[()]]:
        """Pickle nothing of the model: another process loads it from the adapter's settings."""
        check_named(self._embedder)
        return LazyWriter, ()
