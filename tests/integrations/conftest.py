"""What the tests of adapters share."""

import sys

import pytest

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("Question: {text}", "Passage: {text}", [View(2, "mean")])


@pytest.fixture(scope="session")
def model_folder(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture(scope="session")
def embedder(model_folder):
    return Embedder.from_pretrained(model_folder, recipe=RECIPE, dtype="float32", device="cpu")


@pytest.fixture
def without(monkeypatch):
    """Make a package look as if it were not installed."""

    def hide(package, ours):
        for name in list(sys.modules):
            if name in (package, ours) or name.startswith((f"{package}.", f"{ours}.")):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide
