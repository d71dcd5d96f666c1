"""Fingerprints: equal however one model is loaded, different wherever vectors differ."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from tests import tiny
from tp_retrieval import Embedder, InputError, Recipe
from tp_retrieval.embedding.maps import maps_file
from tp_retrieval.embedding.model import fingerprints
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.model.fingerprints import _whole_digest
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("{text}", "{text}", [View(1, "mean")])
SIZES = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "intermediate_size": 4096,  # so wide that a thousand values are fewer than its matrices have rows
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.25,
}
LAST = 49151
FORMAT_1_OF_SMOL = "64754cb7eea6b245ad015fa3a6bc9062"


@pytest.fixture(scope="module")
def tokenizer(smol_folder):
    return transformers.AutoTokenizer.from_pretrained(smol_folder)


@pytest.fixture(scope="module")
def text(tokenizer):
    """A text with the vocabulary's last token in it."""
    text = "red apple" + tokenizer.decode([LAST])
    assert LAST in tokenizer(text).input_ids
    return text


def embedder_of(tokenizer, config, edit=None):
    """Return an embedder whose weights are the same for every configuration of these shapes."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    if edit is not None:
        with torch.no_grad():
            edit(model, tokenizer)
    return Embedder(Backbone.wrap(model, tokenizer), RECIPE)


def llama(**changes):
    return transformers.LlamaConfig(**SIZES | changes)


def granite(**changes):
    return transformers.GraniteConfig(**SIZES, **changes)


def scaled(name, row):
    """Return a change of one row of a tensor; a word stands for the row of its token."""

    def edit(model, tokenizer):
        model.get_parameter(name)[tokenizer(row).input_ids[0] if isinstance(row, str) else row] *= 3

    return edit


@pytest.mark.parametrize(
    ("config", "other", "edit"),
    [
        pytest.param(llama, llama, scaled("model.embed_tokens.weight", "red"), id="an embedding row"),
        pytest.param(llama, llama, scaled("model.embed_tokens.weight", LAST), id="the last embedding row"),
        pytest.param(llama, llama, scaled("model.layers.0.mlp.up_proj.weight", 4095), id="the last row of a matrix"),
        pytest.param(llama, llama, scaled("model.layers.0.mlp.gate_proj.weight", 1001), id="a row of a matrix"),
        pytest.param(
            lambda: llama(head_dim=8),
            lambda: llama(head_dim=16, num_attention_heads=2, num_key_value_heads=1),
            None,
            id="4/2 against 2/1 heads",
        ),
        pytest.param(granite, lambda: granite(embedding_multiplier=3.0), None, id="an embedding multiplier"),
        pytest.param(granite, lambda: granite(residual_multiplier=0.5), None, id="a residual multiplier"),
        pytest.param(granite, lambda: granite(attention_multiplier=0.1), None, id="an attention multiplier"),
        pytest.param(
            llama, lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 99.0}), None, id="rope theta"
        ),
    ],
)
def test_models_whose_vectors_differ_have_different_fingerprints(tokenizer, text, config, other, edit):
    one, same, changed = (embedder_of(tokenizer, *of) for of in ((config(),), (config(),), (other(), edit)))
    vectors = [embedder.embed_documents([text]) for embedder in (one, same, changed)]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3
    assert one.fingerprint == same.fingerprint != changed.fingerprint
    assert one.provenance.weights == same.provenance.weights != changed.provenance.weights


def test_every_embedding_row_counts():
    table = torch.randn(3000, 16)
    digests = {_whole_digest(table)}
    for row in range(0, 3000, 7):
        changed = table.clone()
        changed[row, row % 16] += 1
        digests.add(_whole_digest(changed))
    assert len(digests) == 1 + len(range(0, 3000, 7))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_one_model_has_one_fingerprint_however_it_is_loaded(kind, tiny_folder, tmp_path):
    folder = tiny_folder(kind)
    half = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    whole = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="bfloat16", device="cpu", whole=True)
    whole.backbone.language_model().model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    again = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    deep = Recipe("{text}", "{text}", [View(4)])
    same = {
        "half, float32": half,
        "whole, bfloat16": whole,
        "saved in bfloat16, its model given": Embedder(Backbone.wrap(again, half.backbone.tokenizer), tiny.RECIPE),
        "shares a deeper one's weights": Embedder.from_pretrained(
            folder, recipe=deep, dtype="float32", device="cpu"
        ).with_recipe(tiny.RECIPE),
    }
    assert {name: embedder.fingerprint for name, embedder in same.items()} == dict.fromkeys(same, half.fingerprint)
    assert {e.legacy_identity().fingerprint for e in same.values()} == {half.legacy_identity().fingerprint}


def test_an_unpacked_gguf_file_and_a_hub_folder_of_its_weights_have_one_fingerprint(smol, smol_folder, tmp_path):
    shutil.copytree(smol_folder, tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    as_on_the_hub = {
        "architectures": ["LlamaForCausalLM"],
        "is_llama_config": True,
        "dtype": "bfloat16",
        "use_cache": False,
    }
    eps = {"rms_norm_eps": float(np.float32(config["rms_norm_eps"])) * (1 + 1e-8)}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config | as_on_the_hub | eps))
    hub = Embedder.from_pretrained(tmp_path / "hub", recipe=smol.recipe, whole=True, dtype="bfloat16")
    assert hub.fingerprint == smol.fingerprint


def test_format_1_is_what_earlier_versions_wrote(smol):
    """Made by the version before format 2; it must never change."""
    assert fingerprints.format_1(smol.backbone, 3) == FORMAT_1_OF_SMOL
    assert fingerprints.format_2(smol.backbone, 3).startswith("2:")


def test_a_unit_embedder_has_a_fingerprint_of_its_own_in_both_formats(embedder):
    unit = UnitEmbedder.of(embedder)
    identities = [one.legacy_identity() for one in (unit, embedder)]
    assert len({unit.fingerprint, embedder.fingerprint, *(identity.fingerprint for identity in identities)}) == 4
    assert [identity.provenance.unit for identity in identities] == [True, False]


def header_of(folder):
    return maps_file.read(folder).weights


def test_maps_fitted_before_format_2_are_read_and_carry_it_then(tiny_folder, tmp_path):
    folder = tiny_folder("llama")
    fitted = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32").fit(["one", "two", "three"])
    fitted.save(tmp_path)
    saved = maps_file.read(tmp_path)
    legacy = fitted.legacy_identity().provenance.weights
    maps_file.write(tmp_path, saved.recipe, saved.maps, {"weights": legacy, "model": str(folder)})
    again = Embedder.from_pretrained(tmp_path, dtype="float32")
    assert again.fingerprint == fitted.fingerprint
    assert header_of(tmp_path) == fitted.provenance.weights != legacy
    assert sorted(file.name for file in tmp_path.iterdir()) == ["maps.safetensors", "recipe.json"]
    assert Embedder.from_pretrained(tmp_path, dtype="float32").fingerprint == fitted.fingerprint
    maps_file.write(tmp_path, saved.recipe, saved.maps, {"weights": "0" * 32, "model": str(folder)})
    with pytest.raises(InputError, match=f"were fitted with weights {'0' * 32}, .* has {legacy}; fit again"):
        Embedder.from_pretrained(tmp_path, dtype="float32")
    assert header_of(tmp_path) == "0" * 32


def test_a_saved_buffer_counts_and_so_does_the_order_of_equal_shapes(tokenizer):
    """A router's bias is a buffer in many mixtures of experts; keys and values have one shape."""

    def with_bias(value):
        def edit(model, _):
            for block in model.model.layers:
                block.mlp.register_buffer("bias", torch.full((4,), value))

        return embedder_of(tokenizer, llama(), edit)

    def swapped(model, _):
        attention = model.model.layers[0].self_attn
        attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj

    plain = embedder_of(tokenizer, llama())
    made = {one.fingerprint for one in (plain, with_bias(0.0), with_bias(1.0), embedder_of(tokenizer, llama(), swapped))}
    assert len(made) == 4
    assert with_bias(1.0).fingerprint in made
