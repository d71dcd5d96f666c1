"""A language model in memory as an embedder: the same weights, and nothing about the model changes."""

import pickle
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tp_retrieval import Embedder, Index, InputError, ModelNotFoundError, Recipe, Reranker
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.integrations.langchain import TPEmbeddings
from tp_retrieval.integrations.llama_index import TPEmbedding

SLOTTED = Recipe('A text : <PST> "{text}"', 'A text : <PST> "{text}"', [View(3), View(1, "mean")], Prepend("tp", 1, 3))
TEXTS = ["a dog runs", "the green river", "why is the house under the mountain?"]


@pytest.fixture
def folder(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("recipe", [tiny.RECIPE, SLOTTED], ids=["plain", "rewired"])
def test_its_vectors_are_those_of_the_loaded_model_and_generation_goes_on_as_before(folder, model, tokenizer, recipe):
    ids = tokenizer("a dog", return_tensors="pt")
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    state = {name: weights.clone() for name, weights in model.state_dict().items()}
    with torch.inference_mode():
        logits = model(**ids).logits
    generated = model.generate(**ids, **options)
    embedder = Embedder.from_model(model, tokenizer, recipe=recipe)
    vectors = embedder.embed_documents(TEXTS)
    assert torch.equal(model.generate(**ids, **options), generated)
    assert np.array_equal(embedder.embed_documents(TEXTS), vectors)
    with torch.inference_mode():
        assert torch.equal(model(**ids).logits, logits)
    assert all(torch.equal(weights, state[name]) for name, weights in model.state_dict().items())
    loaded = Embedder.from_pretrained(folder, recipe=recipe, dtype="float32", device="cpu")
    assert np.array_equal(vectors, loaded.embed_documents(TEXTS))
    assert np.array_equal(embedder.embed_queries(TEXTS), loaded.embed_queries(TEXTS))


def test_weights_are_shared_and_never_copied(model, tokenizer):
    places = {weights.data_ptr() for weights in model.parameters()}
    embedder = Embedder.from_model(model, tokenizer, recipe=SLOTTED)
    embedder.embed_documents(TEXTS)
    reranker = Reranker(embedder)
    reranker.score("why?", TEXTS)
    assert {weights.data_ptr() for weights in embedder.backbone.decoder.parameters()} <= places
    assert embedder.backbone.language_model().model is model


def test_many_embedders_of_a_model_share_one_plain_tokenizer_until_tokens_are_added(model, tokenizer):
    first, second = (Embedder.from_model(model, tokenizer, recipe=SLOTTED).backbone for _ in range(2))
    assert first.plain_tokenizer is second.plain_tokenizer is first.language_model().backbone.plain_tokenizer
    tokenizer.add_tokens(["zzyzx"])
    third = Embedder.from_model(model, tokenizer, recipe=SLOTTED)
    assert (third.count_tokens("zzyzx"), len(first.plain_tokenizer.encode("zzyzx").ids) > 1) == (1, True)


def test_an_index_of_it_is_opened_again_by_its_name(folder, model, tokenizer, tmp_path):
    embedder = Embedder.from_model(model, tokenizer, recipe=tiny.RECIPE)
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(TEXTS)
        found = [hit.document.text for hit in index.search("river", 3)]
    with Index.open(tmp_path / "i") as index:
        assert [hit.document.text for hit in index.search("river", 3)] == found


def test_a_recipe_is_found_by_the_models_name(model, tokenizer):
    assert Embedder.from_model(model, tokenizer).recipe == Recipe.load("retrieval-balanced")
    assert Embedder.from_model(model, tokenizer, recipe="prompteol").recipe == Recipe.load("prompteol")


def holders(model, tokenizer):
    """Return objects that hold a model as frameworks do."""
    pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    return {
        "pipeline": pipeline,
        "HuggingFacePipeline": SimpleNamespace(pipeline=pipeline),
        "ChatHuggingFace": SimpleNamespace(llm=SimpleNamespace(pipeline=pipeline)),
        "HuggingFaceLLM": SimpleNamespace(_model=model, _tokenizer=tokenizer),
    }


def test_adapters_take_a_model_in_memory_and_what_holds_one(model, tokenizer):
    embedder = Embedder.from_model(model, tokenizer, recipe=tiny.RECIPE)
    want = embedder.normalize(embedder.embed_documents(TEXTS))
    recipe = tiny.RECIPE.to_dict()
    for holder in holders(model, tokenizer).values():
        for adapter in (TPEmbeddings(model=holder, recipe=recipe), TPEmbedding(model=holder, recipe=recipe)):
            documents = adapter.embed_documents if isinstance(adapter, TPEmbeddings) else adapter.get_text_embedding_batch
            assert np.array_equal(np.array(documents(TEXTS), dtype=np.float32), want)
            assert adapter.embedder.backbone.decoder is model.model
        assert np.array_equal(
            Embedder.from_model(holder, recipe=tiny.RECIPE).embed_documents(TEXTS)[0], embedder.embed_documents(TEXTS)[0]
        )
    plain = TPEmbeddings(model=model, tokenizer=tokenizer, recipe=recipe)
    assert np.array_equal(np.array(plain.embed_documents(TEXTS), dtype=np.float32), want)
    assert plain.model_name == model.config._name_or_path
    assert TPEmbedding(model="a/name").model_name == "a/name"


class Adapted(nn.Module):
    """A wrapper with PEFT's method."""

    def __init__(self, model):
        super().__init__()
        self.base = model

    def get_base_model(self):
        return self.base


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("wrap", [torch.compile, Adapted, lambda model: Adapted(torch.compile(model))])
def test_wrappers_are_read_inside(model, tokenizer, wrap):
    want = Embedder.from_model(model, tokenizer, recipe=SLOTTED).embed_documents(TEXTS)
    assert np.array_equal(Embedder.from_model(wrap(model), tokenizer, recipe=SLOTTED).embed_documents(TEXTS), want)


def test_hooks_of_others_stay_and_run(model, tokenizer):
    ran = []
    model.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    embedder = Embedder.from_model(model, tokenizer, recipe=SLOTTED)
    embedder.embed_documents(TEXTS)
    assert ran
    assert len(model.model.layers[0]._forward_hooks) == 1
    assert not model.model.layers[1]._forward_pre_hooks
    assert not model.get_input_embeddings()._forward_hooks


def test_models_that_can_not_embed_are_refused_with_the_reason(model, tokenizer, folder):
    with pytest.raises(InputError, match="training mode"):
        Embedder.from_model(model.train(), tokenizer)
    for other in (nn.Linear(2, 2), 7, object()):
        with pytest.raises(InputError, match=f"expected a model of transformers.* got {type(other).__name__}"):
            Embedder.from_model(other, tokenizer)
    with pytest.raises(InputError, match="tokenizer: a model alone has none"):
        Embedder.from_model(model.eval())
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.config).eval()
    with pytest.raises(InputError, match="meta device"):
        Embedder.from_model(empty, tokenizer)


def test_a_model_that_goes_into_training_afterwards_is_refused(model, tokenizer):
    embedder = Embedder.from_model(model, tokenizer, recipe=tiny.RECIPE)
    model.train()
    with pytest.raises(InputError, match="in training mode by now"):
        embedder.embed_documents(TEXTS)


def test_an_object_that_holds_itself_holds_no_model(tokenizer):
    holder = SimpleNamespace()
    holder.llm = holder
    with pytest.raises(InputError, match="an object that holds one, got SimpleNamespace"):
        Embedder.from_model(holder, tokenizer)


def test_a_model_without_a_name_is_never_another_one(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("tp_retrieval.embedding.model.source._hub_has_an_address", lambda: False)
    model.config._name_or_path = ""
    embedder = Embedder.from_model(model, tokenizer, recipe=tiny.RECIPE)
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(TEXTS)
    with Index.open(tmp_path / "i", embedder) as index:
        assert index.search("river", 1)
    with Index.open(tmp_path / "i") as index, pytest.raises(ModelNotFoundError, match="llama without a name"):
        index.search("river", 1)


def test_an_adapter_with_a_model_in_memory_is_not_pickled_as_another_one(model, tokenizer):
    made = TPEmbedding(model=model, tokenizer=tokenizer, recipe=tiny.RECIPE.to_dict())
    with pytest.raises(InputError, match="in this process's memory alone"):
        pickle.dumps(made)


@pytest.mark.parametrize("adapter", [TPEmbeddings, TPEmbedding])
def test_adapters_take_a_path(adapter):
    assert adapter(model=Path("a/name")).model_name == "a/name"


def test_other_threads_may_run_the_model_while_hooks_come_and_go(model, tokenizer):
    ids, failed, done = tokenizer("a dog", return_tensors="pt"), [], threading.Event()

    def run():
        with torch.inference_mode():
            while not done.is_set():
                try:
                    model(**ids)
                except Exception as error:
                    failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    first, second = (Embedder.from_model(model, tokenizer, recipe=SLOTTED) for _ in range(2))
    want = first.embed_documents(TEXTS)
    for _ in range(40):
        assert np.array_equal(first.embed_documents(TEXTS), want)
        assert np.array_equal(second.embed_documents(TEXTS), want)
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []
