"""An embedder's settings, and the adapters' names for them: the same vectors from another process, through JSON."""

import json
import pickle
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tp_retrieval import Embedder, Index, InputError
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.integrations.langchain import TPChatModel, TPEmbeddings
from tp_retrieval.integrations.llama_index import TPLLM, TPEmbedding
from tp_retrieval.integrations.llama_index import TPVectorStore as LlamaStore
from tp_retrieval.integrations.sentence_transformers import TPModule

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


# -- the same names in every adapter


ADAPTERS = [TPEmbeddings, TPEmbedding, TPChatModel, TPLLM]


@pytest.mark.parametrize("adapter", [*ADAPTERS, TPModule])
def test_every_adapter_takes_the_same_names(adapter, tmp_path):
    caches = {} if adapter in (TPChatModel, TPLLM) else {"cache": tmp_path / "c.sqlite"}
    devices = {} if adapter is TPModule else {"device": "cpu"}  # sentence-transformers moves its modules itself
    made = adapter(model=Path("a/name"), recipe=tiny.RECIPE, dtype="float32", **devices, **caches)
    assert (made.model, made.recipe, made.dtype) == ("a/name", tiny.RECIPE.to_dict(), "float32")
    if caches:
        assert made.cache == str(tmp_path / "c.sqlite")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_former_name_of_the_model_warns(adapter):
    with pytest.warns(DeprecationWarning, match=rf"{adapter.__name__}\(model_name=\) is named model") as caught:
        made = adapter(model_name="a/name")
    assert caught[0].filename == __file__
    assert made.model == made.model_name == "a/name"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_frameworks_that_write_and_read_an_adapter_cause_no_warning(adapter):
    made = adapter(model="a/name", recipe=tiny.RECIPE)
    copies = [
        made.model_copy(),
        adapter.model_validate(made.model_dump()),
        adapter.model_validate_json(made.model_dump_json()),
    ]
    if adapter is not TPChatModel:  # LangChain's own caches of chat models are not pickled
        copies.append(pickle.loads(pickle.dumps(made)))  # noqa: S301
    if hasattr(adapter, "from_dict"):
        copies += [adapter.from_dict(made.to_dict()), adapter.from_json(made.to_json())]
        written_before = {"model_name" if name == "model" else name: value for name, value in made.to_dict().items()}
        copies.append(adapter.from_dict(written_before))
    assert [(copy.model, copy.model_name, copy.recipe) for copy in copies] == [
        ("a/name", "a/name", tiny.RECIPE.to_dict())
    ] * len(copies)


def test_without_a_name_the_model_is_the_embedded_default():
    assert [adapter().model for adapter in ADAPTERS] == [None] * 4
    assert (TPEmbedding().model_name, TPLLM().model_name) == ("", "")
    assert TPEmbedding.from_dict(TPEmbedding().to_dict()).model is None


@pytest.mark.parametrize("adapter", [TPEmbeddings, TPEmbedding])
@pytest.mark.parametrize("normalize", [True, False])
def test_without_normalising_vectors_are_as_the_model_gives_them(adapter, normalize, model_folder):
    embedder = Embedder.from_pretrained(model_folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    raw = embedder.embed_queries(TEXTS)
    want = raw / np.linalg.norm(raw, axis=1, keepdims=True) if normalize else raw
    for made in (
        adapter.from_embedder(embedder, normalize=normalize),
        adapter(model=model_folder, recipe=tiny.RECIPE, dtype="float32", device="cpu", normalize=normalize),
    ):
        embed = made.embed_query if adapter is TPEmbeddings else made.get_query_embedding
        assert np.allclose([embed(text) for text in TEXTS], want, atol=1e-6)


CHILD = """
import json, pickle, sys
adapters = pickle.loads(sys.stdin.buffer.read())
print(json.dumps([adapters[0].embed_query("red apple"), adapters[1].get_query_embedding("red apple")]))
"""


@pytest.mark.slow
def test_a_second_process_embeds_with_what_was_pickled(model_folder):
    settings = {"model": model_folder, "recipe": tiny.RECIPE, "dtype": "float32", "device": "cpu", "normalize": False}
    pickled = pickle.dumps([TPEmbeddings(**settings), TPEmbedding(**settings)])
    done = subprocess.run([sys.executable, "-c", CHILD], input=pickled, capture_output=True, check=True)
    want = Embedder.from_pretrained(model_folder, recipe=tiny.RECIPE, dtype="float32", device="cpu").embed_queries(
        TEXTS[:1]
    )
    assert np.allclose(json.loads(done.stdout), [want[0], want[0]], atol=1e-6)


def test_a_pickled_store_of_llama_index_opens_the_same_index(model_folder, tmp_path):
    embedder = Embedder.from_pretrained(model_folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    with Index.create(tmp_path / "index", embedder) as index:
        index.add(TEXTS)
    with closing(LlamaStore(tmp_path / "index", kind="flat")) as store:
        again = pickle.loads(pickle.dumps(store))  # noqa: S301
        assert (again.options, again.path) == ({"kind": "flat"}, store.path)
        assert again.embed_model.get_query_embedding("a") == store.embed_model.get_query_embedding("a")
        assert LlamaStore.from_dict(store.to_dict()).options == {"kind": "flat"}
        again.close()
