"""Loading a model from an adapter's settings, when its first vector or word is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tp_retrieval import CachedEmbedder, Embedder, Index, InputError, Recipe
from tp_retrieval.answering.writer import TextWriter
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.embedding.normalized import scaled
from tp_retrieval.types import EmbedsStretches, Float32Array

_ROUNDING = 1e-3  # of lengths, in lower precisions and in text that holds few digits


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


def with_model(fields: Mapping[str, Any], adapter: str) -> tuple[dict[str, Any], Embedder | None]:
    """Return the fields of an adapter, and the embedder of a model in memory, None for one that is loaded later.

    `model` is a name or a path, or a model in memory as `Embedder.from_model` takes it, with `tokenizer`. A recipe becomes
    its JSON object, and a path a string. `model_name`, the former name of `model`, warns.
    """
    fields = {**fields}
    if fields.pop("class_name", None) is not None:  # which LlamaIndex writes into what it stores
        fields = with_new_names(fields)
    if "model_name" in fields:
        warnings.warn(f"{adapter}(model_name=) is named model; use that", DeprecationWarning, stacklevel=3)
    tokenizer, name = fields.pop("tokenizer", None), fields.pop("model_name", None)
    model = fields.pop("model", None) or name
    fields |= {key: as_json(fields[key]) for key in ("recipe", "cache") if key in fields}
    if model is None:
        return fields, None
    if isinstance(model, (str, Path)):
        return {**fields, "model": str(model)}, None
    recipe = fields.pop("recipe", None)
    of_recipe = Recipe.from_dict(recipe) if isinstance(recipe, Mapping) else recipe
    embedder = Embedder.from_model(model, tokenizer, recipe=of_recipe)
    return {**fields, **fields_of(embedder)}, embedder


def with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored fields of an adapter with `model` in place of `model_name`, its former name."""
    return {"model" if name == "model_name" else name: value for name, value in fields.items()}


def as_json(value: object) -> object:
    """Return a recipe as its JSON object and a path as a string, since fields are written as JSON."""
    if isinstance(value, Recipe):
        return value.to_dict()
    return str(value) if isinstance(value, Path) else value


def fields_of(embedder: Embedder) -> dict[str, Any]:
    """Return the fields of an adapter that another process loads the same embedder from."""
    return EmbedderSettings.of(embedder).to_dict()


def fields_of_index(index: Index) -> dict[str, Any] | None:
    """Return the fields of an adapter of the embedder that made an index; None where the index names no model."""
    stored = index.provenance
    if stored is None:
        return None
    return {**EmbedderSettings.stored(stored).to_dict(), "normalize": stored.unit}


def needs_lengths(index: Index) -> bool:
    """Return whether an index compares vectors by more than the directions of their views.

    Without maps the directions are enough. A map subtracts a mean first, and the direction of the difference depends on the
    length; an index of unit vectors scales what it is given.
    """
    stored = index.provenance
    return stored is not None and not stored.unit and any(view.postprocess != "none" for view in index.views)


def is_scaled_otherwise(index: Index, vectors: Float32Array) -> bool:
    """Return whether vectors `(n, dimension)` are of unit length, and the index needs the lengths that the model gives."""
    if not len(vectors) or not needs_lengths(index):
        return False
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=_ROUNDING))


def read_missing(index: Index) -> None:
    """Let the model read the stretches that an index's maps are fitted on, where only vectors were added."""
    if index.info().unread and isinstance(index.embedder, EmbedsStretches):
        index.rebuild()


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
    """The embedder that an adapter's settings describe, or that `load` returns, loaded by the first call that needs it."""

    def __init__(
        self, embedder: Embedder | None = None, *, load: Callable[[], Embedder | CachedEmbedder] | None = None
    ) -> None:
        self._load = load
        self._embedder: Embedder | CachedEmbedder | None = embedder
        self._returned: Embedder | CachedEmbedder | None = None
        self._lock = Lock()

    def get(self, settings: EmbedderSettings, cache: str | None, *, normalize: bool = True) -> Embedder | CachedEmbedder:
        """Return the embedder, its views of unit length if they shall be, behind a `CachedEmbedder` if a cache is named."""
        with self._lock:
            if self._returned is None:
                if self._embedder is None:
                    self._embedder = settings.load() if self._load is None else self._load()
                self._returned = _adapted(self._embedder, cache, normalize)
            return self._returned

    def __reduce__(self) -> tuple[type[LazyEmbedder], tuple[()]]:
        """Pickle nothing of the embedder: another process loads it from the adapter's settings."""
        self.check_portable()
        return LazyEmbedder, ()

    def check_portable(self) -> None:
        """Raise `InputError` if another process could not load the embedder from settings, or would load other weights."""
        if self._embedder is None and self._load is not None:
            self._embedder = self._load()
        cached = self._embedder
        embedder = cached.embedder if isinstance(cached, CachedEmbedder) else cached
        if not isinstance(embedder, Embedder):
            return
        check_named(embedder)
        if embedder.fitted and embedder.folder is None:
            raise InputError("its maps are in this process's memory alone; save the embedder, and load it from its folder")


def _adapted(embedder: Embedder | CachedEmbedder, cache: str | None, normalize: bool) -> Embedder | CachedEmbedder:
    if isinstance(embedder, CachedEmbedder):  # an index's, as it was opened
        return embedder
    embedder = scaled(embedder, unit=normalize)
    return embedder if cache is None else CachedEmbedder(embedder, cache)


def embedder_of(index: Index) -> Embedder | CachedEmbedder:
    """Return the embedder of an index; raise `InputError` for one that is of another kind."""
    embedder = index.embedder
    if not isinstance(embedder, (Embedder, CachedEmbedder)):
        raise InputError(f"embedder: the index was opened with a {type(embedder).__name__}, which is no Embedder")
    return embedder


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


class HasLazyEmbedder(Protocol):
    """An adapter of an embedder."""

    _lazy: LazyEmbedder


Adapter = TypeVar("Adapter", bound=HasLazyEmbedder)


def adapter_of_index(index: Index, make: Callable[..., Adapter]) -> Adapter | None:
    """Return an adapter that shares the embedder of an index, to search it by vector; None where it names no model."""
    fields = fields_of_index(index)
    if fields is None:
        return None
    adapter = make(**fields)
    adapter._lazy = LazyEmbedder(load=lambda: embedder_of(index))
    return adapter
