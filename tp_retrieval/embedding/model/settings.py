"""The arguments of `Embedder.from_pretrained` as a value: kept by adapters, sent to workers, written as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.model.device import check_device_map, resolve_device
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError
from tp_retrieval.types import Provenance

_QUANTISERS = ("bitsandbytes", "torchao")
_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedderSettings:
    """What loads an embedder: the arguments of `Embedder.from_pretrained`, a recipe by name, file or as its JSON object."""

    model: str | None = None
    recipe: str | Mapping[str, object] | None = None
    device: str | None = None
    dtype: str = "auto"
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    model_kwargs: Mapping[str, object] = field(default_factory=dict)
    whole: bool = False

    @classmethod
    def stored(
        cls,
        provenance: Provenance,
        *,
        device: str | None = None,
        dtype: str | None = None,
        model_kwargs: Mapping[str, object] | None = None,
    ) -> EmbedderSettings:
        """Return the settings by which the embedder of an index is loaded again.

        Of the stored `model_kwargs` those are taken that place or quantise weights; others could run code that an index
        from elsewhere names, so they raise `InputError`. A device that this machine lacks is replaced by the default.
        Arguments that are given take the place of stored ones.
        """
        if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
            raise InputError(f"model_kwargs: {model_kwargs!r} must be arguments of transformers by name")
        stored = provenance.settings.get("model_kwargs", {})
        stored = stored if isinstance(stored, Mapping) else {"model_kwargs": stored}  # which is refused below
        kwargs = {name: value for name, value in stored.items() if name not in (model_kwargs or {})}
        for name, value in kwargs.items():
            if not _may_be_stored(name, value):
                raise InputError(
                    f"the index was made with model_kwargs {name}={json.dumps(value)}, which is not taken from an index; "
                    "give it again, or the embedder to Index.open"
                )
        return cls(
            model=provenance.source,
            recipe=provenance.recipe,
            device=device or _if_here(provenance.settings.get("device")),
            dtype=dtype or provenance.dtype,
            revision=provenance.revision,
            model_kwargs={**_placeable(kwargs), **(model_kwargs or {})},
        )

    @classmethod
    def of(cls, embedder: Embedder) -> EmbedderSettings:
        """Return the settings by which another process loads an embedder that is in this one's memory."""
        backbone, folder = embedder.backbone, embedder.folder
        settings = cls(
            model=backbone.origin if folder is None else str(folder),
            recipe=embedder.recipe.to_dict() if folder is None else None,
            device=str(backbone.device),
            dtype=str(backbone.dtype).removeprefix("torch."),
        )
        source = backbone.source
        if source is None:
            return settings
        return replace(
            settings,
            revision=source.revision,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
            model_kwargs=dict(source.model_kwargs),
        )

    def load(self) -> Embedder:
        """Load the embedder; raise what `Embedder.from_pretrained` raises."""
        recipe = Recipe.from_dict(dict(self.recipe)) if isinstance(self.recipe, Mapping) else self.recipe
        return Embedder.from_pretrained(
            self.model,
            recipe=recipe,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
            model_kwargs=dict(self.model_kwargs),
            whole=self.whole,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, as JSON holds them."""
        defaults = {f.name: {} if f.default is MISSING else f.default for f in fields(self)}
        return {name: value for name, value in vars(self).items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EmbedderSettings:
        """Return the settings that `to_dict` wrote; raise `InputError` for a name that is none of them."""
        names = [f.name for f in fields(cls)]
        unknown = [name for name in data if name not in names]
        if unknown:
            raise InputError(f"settings: {unknown[0]!r} must be one of {', '.join(names)}")
        return cls(**data)


def _placeable(kwargs: Mapping[str, object]) -> dict[str, object]:
    """Return arguments without a `device_map` to devices that this machine lacks."""
    try:
        check_device_map(kwargs.get("device_map"))
    except InputError as error:
        logger.info("%s; the default is taken", error)
        return {name: value for name, value in kwargs.items() if name != "device_map"}
    return dict(kwargs)


def _if_here(device: object) -> str | None:
    """Return a device, None where this machine lacks it."""
    if not isinstance(device, str):
        return None
    try:
        resolve_device(device)
    except InputError as error:
        logger.info("%s; the default is taken", error)
        return None
    return device


def _may_be_stored(name: str, value: object) -> bool:
    """Return whether an argument of transformers, named in a file from anywhere, does no more than it should."""
    if name == "quantization_config":
        return isinstance(value, Mapping) and value.get("quant_method") in _QUANTISERS
    if name == "attn_implementation":
        return value in _ATTENTIONS  # others are names of code on the hub
    return name == "device_map"
