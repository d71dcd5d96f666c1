"""A fitted embedder on disk: recipe.json, and maps.safetensors with the model in its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tp_retrieval.embedding.maps.affine import AffineMap
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError, RecipeError
from tp_retrieval.sqlite.atomic import atomic_write
from tp_retrieval.types import FORMAT_2

RECIPE = "recipe.json"
MAPS = "maps.safetensors"
_FORMAT = "1"


@dataclass(frozen=True)
class SavedEmbedder:
    """A saved embedder: the recipe, its fitted maps, and the model they were fitted with."""

    folder: Path
    recipe: Recipe
    maps: tuple[AffineMap, ...]
    model: str | None
    revision: str | None
    weights: str

    def check_weights(self, weights: str, legacy: str) -> None:
        """Raise `InputError` if the loaded model is not the one that the maps were fitted with.

        A header that names the weights by their `legacy` fingerprint is accepted, and replaced where it can be written.
        """
        if self.weights == weights:
            return
        if self.weights != legacy:
            loaded = weights if self.weights.startswith(FORMAT_2) else legacy
            raise InputError(
                f"{self.folder}: its maps were fitted with weights {self.weights}, {self.model or 'the default model'} "
                f"has {loaded}; fit again"
            )
        origin = {"weights": weights, "model": self.model, "revision": self.revision}
        with suppress(OSError):  # a read-only folder keeps the former header
            _write_maps(self.folder, self.maps, {name: value for name, value in origin.items() if value is not None})


def write(folder: Path, recipe: Recipe, maps: Sequence[AffineMap], header: Mapping[str, str]) -> None:
    """Write both files; `header` names the model and its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_maps(folder, maps, header)
    (folder / RECIPE).write_text(recipe.to_json(), encoding="utf-8")


def _write_maps(folder: Path, maps: Sequence[AffineMap], header: Mapping[str, str]) -> None:
    """Write the maps atomically, so that another process never reads half of them."""
    tensors = {f"{i}.{name}": array for i, map_ in enumerate(maps) for name, array in map_.arrays().items()}
    with atomic_write(folder / MAPS) as scratch:
        scratch.write_bytes(save(tensors, metadata={"format": _FORMAT, **header}))


def read(folder: Path) -> SavedEmbedder | None:
    """Read what `write` wrote, or return None where there is no such folder; `RecipeError` names a damaged file."""
    file = folder / MAPS
    if not file.is_file():
        return None
    recipe = Recipe.load(folder / RECIPE)
    try:
        with safe_open(file, framework="numpy") as tensors:
            header = tensors.metadata() or {}
            arrays = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, not a dict
    except SafetensorError as error:
        raise RecipeError(f"{file}: not a safetensors file ({error})") from error
    if header.get("format") != _FORMAT or "weights" not in header:
        raise RecipeError(f"{file}: format {header.get('format')!r} must be {_FORMAT!r}")
    names = [field.name for field in fields(AffineMap)]
    maps = tuple(AffineMap(**{name: arrays.get(f"{i}.{name}") for name in names}) for i in range(len(recipe.views)))
    if not all(map_.finite for map_ in maps):
        raise RecipeError(f"{file}: holds NaN or infinity; fit the maps again")
    return SavedEmbedder(folder, recipe, maps, header.get("model"), header.get("revision"), header["weights"])
