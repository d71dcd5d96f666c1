"""A frozen language model as a sentence-transformers module, and through it in MTEB.

    model = SentenceTransformer(modules=[TPModule(), Normalize()])
    model.similarity(model.encode_query(questions), model.encode_document(passages))

`encode_query` goes through the recipe's query templates, `encode_document` and plain `encode` through its document
templates. A saved model names the language model and does not copy its weights; `SentenceTransformer(folder,
trust_remote_code=True)` reads it again, the flag being sentence-transformers' own condition for modules not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypedDict, cast

from tp_retrieval.errors import OptionalDependencyError

try:
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise OptionalDependencyError("sentence-transformers", "sentence-transformers") from error

import torch
from transformers import PreTrainedTokenizerBase

from tp_retrieval import CachedEmbedder, Embedder, InputError, Recipe
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.integrations.loading import LazyEmbedder, settings_of, with_model
from tp_retrieval.types import checked_texts

__all__ = ["TPModule"]


class HubOptions(TypedDict):
    """Where sentence-transformers reads a model's files."""

    token: bool | str | None
    cache_folder: str | None
    revision: str | None
    local_files_only: bool


class TPModule(InputModule):
    """Embed texts through the templates of a recipe, queries and documents each through their own.

    `model` is what `Embedder.from_pretrained` takes: a hub id, a folder, a GGUF file or the folder of a fitted embedder;
    None is the embedded default. It is loaded with the first text, on the device chosen by sentence-transformers, and again
    in every process of a pool. A model in memory, with its `tokenizer`, or an object that holds both, is taken as it is.
    `cache` is a file that keeps every vector, see `CachedEmbedder`. Vectors are of unit length.
    """

    config_file_name = "tp_retrieval.json"
    config_keys = [  # noqa: RUF012, as in the base class
        "model",
        "recipe",
        "dtype",
        "revision",
        "local_files_only",
        "trust_remote_code",
        "model_kwargs",
        "cache",
    ]
    forward_kwargs = {"task"}  # noqa: RUF012, as in the base class

    def __init__(
        self,
        model: object = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        recipe: str | Path | Recipe | dict[str, object] | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, object] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        options = {"dtype": dtype, "revision": revision, "local_files_only": local_files_only, "model_kwargs": model_kwargs}
        fields, embedder = with_model(
            {"model": model, "tokenizer": tokenizer, "recipe": recipe, "cache": cache, **options}, "TPModule"
        )
        self.model: str | None = fields.get("model")
        self.recipe = fields.get("recipe")
        self.dtype = fields["dtype"]
        self.revision = fields["revision"]
        self.local_files_only = fields["local_files_only"]
        self.trust_remote_code = trust_remote_code
        self.model_kwargs = fields["model_kwargs"] or {}
        self.cache = fields.get("cache")
        self._lazy = LazyEmbedder()
        self._loaded_on: torch.device | None = None
        self._device_marker: torch.Tensor
        # sentence-transformers moves this buffer with the module; the language model is no part of the module, so that
        # saving and pickling do not copy its weights
        self.register_buffer("_device_marker", torch.empty(0), persistent=False)
        if embedder is not None:
            self._share(embedder)

    @classmethod
    def from_embedder(cls, embedder: Embedder, *, cache: str | Path | None = None) -> TPModule:
        """Wrap a loaded embedder."""
        settings = EmbedderSettings.of(embedder).to_dict()
        settings.pop("device")
        self = cls(**settings, cache=cache)
        self._share(embedder)
        return self

    def _share(self, embedder: Embedder) -> None:
        device = embedder.backbone.device
        self.to(device)
        self._lazy, self._loaded_on = LazyEmbedder(embedder), device

    @property
    def device(self) -> str:
        """Where the vectors are computed."""
        return str(self._device_marker.device)

    @property
    def embedder(self) -> Embedder | CachedEmbedder:
        """The embedder of unit vectors, loaded on first use and after the module was moved."""
        if self._loaded_on != self._device_marker.device:
            self._lazy, self._loaded_on = LazyEmbedder(), self._device_marker.device
        return self._lazy.get(settings_of(self, self.model), self.cache)

    @property
    def _engine(self) -> Embedder:
        embedder = self.embedder
        inner = embedder.embedder if isinstance(embedder, CachedEmbedder) else embedder
        return cast("Embedder", inner)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:  # type: ignore[override]  # a plain attribute there, read only
        """The model's tokenizer, for those who count tokens; texts are not prepared with it."""
        return self._engine.backbone.tokenizer

    @property
    def max_seq_length(self) -> int:
        """The recipe's `max_tokens`, template included."""
        return self._engine.recipe.max_tokens

    def get_embedding_dimension(self) -> int:
        """Return the length of the vectors."""
        return self.embedder.dimension

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None, **_: object
    ) -> dict[str, Any]:
        """Keep the texts as they are: the recipe's templates are all that is put around them."""
        if prompt:
            raise InputError(f"prompt: {prompt!r} can't be put before a text; templates belong to the recipe")
        return {"texts": checked_texts(inputs, "inputs")}

    def forward(self, features: dict[str, Any], task: str | None = None, **_: object) -> dict[str, Any]:
        """Add the unit vectors, `(n, dimension) float32`, as `sentence_embedding`."""
        embedder = self.embedder
        embed = embedder.embed_queries if task == "query" else embedder.embed_documents
        vectors = torch.from_numpy(embed(features["texts"]))
        return features | {"sentence_embedding": vectors.to(self._device_marker.device)}

    def save(self, output_path: str, *args: object, safe_serialization: bool = True, **kwargs: object) -> None:
        """Write the settings, and a fitted embedder's maps; the language model is named, not copied."""
        if self._engine.fitted:
            self._engine.save(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, object] | None = None,
        **kwargs: object,
    ) -> Self:
        """Load a module that `save` wrote."""
        hub = HubOptions(token=token, cache_folder=cache_folder, revision=revision, local_files_only=local_files_only)
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)
        if folder is not None and (Path(folder) / "maps.safetensors").exists():
            config |= {"model": folder, "recipe": None, "revision": None}
        return cls(**config)

    def __getstate__(self) -> dict[str, object]:
        """Return the settings alone: another process loads the model itself."""
        self._lazy.check_portable()
        return self.__dict__ | {"_lazy": None, "_loaded_on": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore the settings; the first text loads the model."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._lazy = LazyEmbedder()
