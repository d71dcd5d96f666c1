"""The arguments of `Embedder.from_pretrained` as a value: kept by adapters, sent to workers, written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError


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
