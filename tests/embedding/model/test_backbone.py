"""What can be loaded, what is refused, and what one line says about it."""

import shutil

import numpy as np
import pytest
import torch
import transformers

from tests import tiny
from tp_retrieval import Embedder, InputError, ModelNotFoundError, Recipe, RecipeError, UnsupportedModelError
from tp_retrieval.embedding.model import backbone, gguf
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("{text}", "{text}", [View(1)])
SMALL = {"vocab_size": 49152, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture
def tokenizer(smol_folder):
    return transformers.AutoTokenizer.from_pretrained(smol_folder)


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_encoder_is_refused_because_its_tokens_see_what_follows(tokenizer, tmp_path):
    folder = save(transformers.BertModel(transformers.BertConfig(**SMALL)), tokenizer, tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"bert is no causal decoder: its tokens see what follows them"):
        Embedder.from_pretrained(folder, recipe=RECIPE)


def test_an_encoder_decoder_is_refused(tokenizer, tmp_path):
    config = transformers.T5Config(vocab_size=49152, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    folder = save(transformers.T5ForConditionalGeneration(config), tokenizer, tmp_path)
    with pytest.raises(UnsupportedModelError, match="t5 is an encoder-decoder"):
        Embedder.from_pretrained(folder, recipe=RECIPE)


def test_a_state_space_model_is_loaded_whole_and_embeds(tokenizer, tmp_path):
    config = transformers.MambaConfig(vocab_size=49152, hidden_size=32, num_hidden_layers=2, state_size=4)
    folder = save(transformers.MambaModel(config), tokenizer, tmp_path)
    embedder = Embedder.from_pretrained(folder, recipe=RECIPE)
    assert np.isfinite(embedder.embed_documents(["a dog", "the long green river"])).all()
    assert len(embedder.backbone.blocks) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("layer_types", ["linear_attention", "full_attention"]), ("hidden_size_per_layer_input", 8), ("num_hash_layers", 1)],
)
def test_what_blocks_know_beside_keys_and_values_is_no_attention_alone(name, value):
    config = transformers.LlamaConfig(**SMALL)
    assert backbone.has_attention_only(config)
    setattr(config, name, value)
    assert not backbone.has_attention_only(config)


def test_a_recipe_too_deep_for_the_model_is_refused_before_weights_are_read(tokenizer, tmp_path):
    folder = save(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)), tokenizer, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"views\.exit: 3 must be at most 2"):
        Embedder.from_pretrained(folder, recipe=Recipe("{text}", "{text}", [View(3)]))


def test_a_broken_gguf_file_is_refused_and_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelNotFoundError, match=r"broken\.gguf can't be read"):
        Embedder.from_pretrained(file, recipe=RECIPE)
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []


def test_a_fingerprint_holds_across_types_and_names_and_tells_models_apart(tmp_path, smol_folder):
    tiny.save("llama", tmp_path / "a", smol_folder)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def weights(folder, dtype):
        return Embedder.from_pretrained(folder, recipe=RECIPE, dtype=dtype).provenance.weights

    assert weights(tmp_path / "a", "float32") == weights(tmp_path / "b", "bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "b")
    assert weights(tmp_path / "a", "float32") != weights(tmp_path / "b", "float32")
    config = tmp_path / "a" / "config.json"
    before = weights(tmp_path / "a", "float32")
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    assert weights(tmp_path / "a", "float32") != before


def test_a_model_in_training_mode_is_refused(tokenizer):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).train()
    with pytest.raises(InputError, match="training mode"):
        backbone.Backbone.wrap(model, tokenizer)
    assert backbone.Backbone.wrap(model.eval(), tokenizer).n_blocks == 2
