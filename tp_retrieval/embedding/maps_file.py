"""A fitted embedder on disk: recipe.json, and maps.safetensors whose header says which model it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tp_retrieval.embedding.postprocess import AffineMap
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError, RecipeError

RECIPE = "recipe.json"
MAPS = "maps.safetensors"
_FORMAT = "1"


@dataclass(frozen=True)
class SavedEmbedder:
    """What a folder holds: the recipe, its fitted maps, and the model they were fitted with."""

    folder: Path
    recipe: Recipe
    maps: tuple[AffineMap, ...]
    model: str | None
    revision: str | None
    weights: str

    def check_weights(self, weights: str) -> None:
        """Raise `InputError` if the model that was loaded is another one than the maps were fitted with."""
        if weights != self.weights:
            raise InputError(
                f"{self.folder}: its maps were fitted with weights {self.weights}, {self.model or 'the default model'} "
                f"has {weights}; fit again"
            )


def write(folder: Path, recipe: Recipe, maps: Sequence[AffineMap], header: Mapping[str, str]) -> None:
    """Write both files; `header` names the model and its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{i}.{name}": array for i, map_ in enumerate(maps) for name, array in map_.arrays().items()}
    save_file(tensors, folder / MAPS, metadata={"format": _FORMAT, **header})
    (folder / RECIPE).write_text(recipe.to_json(), encoding="utf-8")


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
    maps = tuple(AffineMap(arrays.get(f"{i}.mean"), arrays.get(f"{i}.matrix")) for i in range(len(recipe.views)))
    if not all(map_.finite for map_ in maps):
        raise RecipeError(f"{file}: holds NaN or infinity; fit the maps again")
    return SavedEmbedder(folder, recipe, maps, header.get("model"), header.get("revision"), header["weights"])
