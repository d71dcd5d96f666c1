"""Quantised models: prepending equals the slow way, and an index of one opens by itself."""

import numpy as np
import pytest
import torch
import transformers

from tests import architectures
from tests.model_states import assert_close, expected
from tp_retrieval import Document, Embedder, IncompatibleIndexError, Index, InputError, Recipe, Reranker
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.embedding.recipe import Prepend, View

TEXTS = ["A dog.", "The green river runs under an old house.", "Cats", "Why not?"]
VIEWS = [View(1, "mean"), View(3, "last"), View(None, "mean")]
RECIPE = Recipe('The text : <PST> "{text}" is:"', 'The text : <PST> "{text}" is:"', VIEWS, Prepend("tp", 1, 2), clean=False)
KWARGS = {
    "8bit": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "4bit": {"quantization_config": transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama whose matrices are wide enough for blocks of 64 weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=49152, num_key_value_heads=2, initializer_range=0.1, **sizes)
    path = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    architectures.tokenizer().save_pretrained(path)
    return path


def quantised(folder, bits, recipe=RECIPE):
    return Embedder.from_pretrained(folder, recipe=recipe, dtype="float32", device="cpu", model_kwargs=KWARGS[bits])


@pytest.mark.parametrize("bits", KWARGS)
def test_prepending_in_a_quantised_model_equals_the_slow_way(folder, bits):
    embedder = quantised(folder, bits)
    kinds = {type(module).__name__ for module in embedder.backbone.blocks.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    alone = np.concatenate([embedder.embed_documents([text]) for text in TEXTS])
    want = np.stack([expected(embedder, text) for text in TEXTS])
    if bits == "4bit":
        assert_close(embedder.embed_documents(TEXTS), want)
        assert_close(alone, want)
    else:  # activations are rounded to 8 bits as well, by the largest of a row
        cosines = [np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(alone, want, strict=True)]
        assert min(cosines) > 0.999
    plain = Embedder.from_pretrained(folder, recipe=RECIPE, dtype="float32", device="cpu")
    assert np.abs(plain.embed_documents(TEXTS) - want).max() > 1e-3  # it is another model
    assert plain.fingerprint != embedder.fingerprint
    assert np.isfinite(Reranker(embedder).score("Why?", TEXTS)).all()


def test_an_index_of_a_quantised_model_opens_by_itself(folder, tmp_path):
    recipe = Recipe("{text}?", "{text}", [View(1, "mean")])
    with Index.create(tmp_path / "index", quantised(folder, "4bit", recipe)) as index:
        index.add([Document(text, id=text) for text in TEXTS])
        want = index.search("Why not", 4, mode="dense")
    with Index.open(tmp_path / "index") as index:
        assert index.search("Why not", 4, mode="dense") == want
        assert EmbedderSettings.of(index.embedder).model_kwargs["quantization_config"]["load_in_4bit"]
    other = Index.open(tmp_path / "index", model_kwargs={"quantization_config": None})
    with other, pytest.raises(IncompatibleIndexError, match="weights"):
        other.search("Why not", 1)


def test_an_index_says_what_it_does_not_take_from_a_file(folder, tmp_path):
    recipe = Recipe("{text}?", "{text}", [View(1, "mean")])
    embedder = Embedder.from_pretrained(folder, recipe=recipe, device="cpu", model_kwargs={"low_cpu_mem_usage": True})
    Index.create(tmp_path / "index", embedder).close()
    with (
        Index.open(tmp_path / "index") as index,
        pytest.raises(InputError, match="low_cpu_mem_usage=true, which is not taken"),
    ):
        index.add(["text"])
    with Index.open(tmp_path / "index", model_kwargs={"low_cpu_mem_usage": True}) as index:
        assert len(index.add(["text"])) == 1
