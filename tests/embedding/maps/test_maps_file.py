"""A fitted embedder's folder, read by safetensors and json alone, and what a damaged one says."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tp_retrieval import InputError, Recipe, RecipeError
from tp_retrieval.embedding.maps import maps_file
from tp_retrieval.embedding.maps.affine import AffineMap
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("Query: {text}", "{text}", [View(2, "last", "whiten:3"), View(1, "mean"), View(3, "last", "center")])
HEADER = {"weights": "2:abc", "model": "owner/name", "revision": "main"}


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    mean, matrix = rng.standard_normal(8).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    return AffineMap(mean, matrix), AffineMap(), AffineMap(mean * 2)


@pytest.fixture
def folder(tmp_path, maps):
    maps_file.write(tmp_path / "a" / "fitted", RECIPE, maps, HEADER)
    return tmp_path / "a" / "fitted"


def stored(folder):
    """Return header and arrays as safetensors reads them."""
    with safe_open(folder / "maps.safetensors", framework="numpy") as tensors:
        return tensors.metadata(), {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def test_the_files_hold_header_arrays_and_recipe(folder, maps):
    header, arrays = stored(folder)
    assert header == {"format": "1", **HEADER}
    assert sorted(arrays) == ["0.matrix", "0.mean", "2.mean"]
    assert (arrays["0.mean"] == maps[0].mean).all()
    assert (arrays["0.matrix"] == maps[0].matrix).all()
    assert (arrays["2.mean"] == maps[2].mean).all()
    assert json.loads((folder / "recipe.json").read_text())["query"] == "Query: {text}"
    assert sorted(os.listdir(folder)) == ["maps.safetensors", "recipe.json"]


def test_what_was_written_is_read(folder, maps):
    saved = maps_file.read(folder)
    assert saved.recipe == RECIPE
    assert (saved.weights, saved.model, saved.revision) == ("2:abc", "owner/name", "main")
    for got, want in zip(saved.maps, maps, strict=True):
        assert got.arrays().keys() == want.arrays().keys()
        assert all((got.arrays()[name] == array).all() for name, array in want.arrays().items())


def test_a_second_write_replaces_the_first(folder, maps):
    maps_file.write(folder, RECIPE, maps[::-1], {"weights": "2:other"})
    saved = maps_file.read(folder)
    assert (saved.weights, saved.model, saved.revision) == ("2:other", None, None)
    assert (saved.maps[2].matrix == maps[0].matrix).all()
    assert saved.maps[0].matrix is None


def test_a_folder_without_maps_is_none(tmp_path):
    assert maps_file.read(tmp_path) is None
    assert maps_file.read(tmp_path / "missing") is None
    (tmp_path / "maps.safetensors").mkdir()
    assert maps_file.read(tmp_path) is None


def test_a_failed_write_leaves_the_maps_before_and_no_scratch(folder, maps, monkeypatch):
    before = (folder / "maps.safetensors").read_bytes()

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        maps_file.write(folder, RECIPE, maps[::-1], {"weights": "2:other"})
    assert (folder / "maps.safetensors").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["maps.safetensors", "recipe.json"]


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_cut_file_is_named(folder, size):
    os.truncate(folder / "maps.safetensors", size)
    with pytest.raises(RecipeError, match=r"maps\.safetensors: not a safetensors file"):
        maps_file.read(folder)


@pytest.mark.parametrize(
    ("header", "words"),
    [({}, "format None"), ({"format": "2", "weights": "w"}, "format '2' must be '1'"), ({"format": "1"}, "format '1'")],
)
def test_another_format_or_no_weights_are_refused(folder, header, words):
    _, arrays = stored(folder)
    save_file(arrays, folder / "maps.safetensors", metadata=header)
    with pytest.raises(RecipeError, match=words):
        maps_file.read(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(folder, maps, value):
    maps[0].matrix[1, 2] = value
    maps_file.write(folder, RECIPE, maps, HEADER)
    with pytest.raises(RecipeError, match="holds NaN or infinity; fit the maps again"):
        maps_file.read(folder)


def test_a_missing_recipe_is_named(folder):
    (folder / "recipe.json").unlink()
    with pytest.raises(RecipeError, match=r"can't read .*recipe\.json"):
        maps_file.read(folder)


def test_the_same_weights_are_accepted_and_nothing_is_written(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: pytest.fail("written"))
    maps_file.read(folder).check_weights("2:abc", "abc")


@pytest.mark.parametrize(("written", "named"), [("2:abc", "2:new"), ("abc", "old")])
def test_other_weights_are_refused_in_the_format_that_was_written(folder, maps, written, named):
    maps_file.write(folder, RECIPE, maps, {**HEADER, "weights": written})
    words = f"fitted with weights {written}, owner/name has {named}; fit again"
    with pytest.raises(InputError, match=words):
        maps_file.read(folder).check_weights("2:new", "old")
    assert stored(folder)[0]["weights"] == written


@pytest.mark.parametrize("header", [HEADER, {"weights": ""}], ids=["a named model", "the default model"])
def test_weights_named_by_their_legacy_fingerprint_are_named_anew(folder, maps, header):
    maps_file.write(folder, RECIPE, maps, {**header, "weights": "legacy"})
    maps_file.read(folder).check_weights("2:new", "legacy")
    assert stored(folder)[0] == {"format": "1", **header, "weights": "2:new"}
    assert maps_file.read(folder).maps[0].digest() == maps[0].digest()


def test_a_folder_that_can_not_be_written_keeps_the_legacy_fingerprint(folder, maps, monkeypatch):
    maps_file.write(folder, RECIPE, maps, {**HEADER, "weights": "legacy"})

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    maps_file.read(folder).check_weights("2:new", "legacy")
    assert stored(folder)[0]["weights"] == "legacy"
