"""An embedder's settings: the same vectors from another process, through JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests import tiny
from tp_retrieval import Embedder, InputError
from tp_retrieval.embedding.model.settings import EmbedderSettings

TEXTS = ["red apple", "an old stone bridge"]


def recipe_of(postprocess):
    return replace(tiny.RECIPE, views=(replace(tiny.RECIPE.views[0], postprocess=postprocess),))


def test_settings_through_json_load_the_same_embedder(model_folder):
    recipe = recipe_of("none")
    options = {"local_files_only": True, "model_kwargs": {"attn_implementation": "eager"}}
    embedder = Embedder.from_pretrained(model_folder, recipe=recipe, dtype="float32", **options)
    settings = EmbedderSettings.of(embedder)
    written = json.loads(json.dumps(settings.to_dict()))
    expected = {"model": str(model_folder), "recipe": recipe.to_dict(), "device": "cpu", "dtype": "float32", **options}
    assert written == json.loads(json.dumps(expected))
    loaded = EmbedderSettings.from_dict(written).load()
    assert loaded.fingerprint == embedder.fingerprint
    assert np.array_equal(loaded.embed_queries(TEXTS), embedder.embed_queries(TEXTS))
    assert EmbedderSettings.of(loaded) == settings


def test_a_fitted_embedders_settings_name_its_folder(model_folder, tmp_path):
    Embedder.from_pretrained(model_folder, recipe=recipe_of("center"), dtype="float32").fit(TEXTS * 20).save(
        tmp_path / "fitted"
    )
    fitted = Embedder.from_pretrained(tmp_path / "fitted", dtype="float32")
    settings = EmbedderSettings.of(fitted)
    assert (settings.model, settings.recipe) == (str(tmp_path / "fitted"), None)
    assert settings.load().fingerprint == fitted.fingerprint


def test_defaults_are_not_written_and_unknown_names_are_refused():
    assert EmbedderSettings().to_dict() == {}
    assert EmbedderSettings.from_dict({"whole": True}) == EmbedderSettings(whole=True)
    with pytest.raises(InputError, match="'dype' must be one of model, recipe, device, dtype"):
        EmbedderSettings.from_dict({"dype": "float32"})
