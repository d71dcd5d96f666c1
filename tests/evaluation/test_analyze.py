"""Geometry against its definition, attention against transformers' own weights."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tests import tiny
from tp_retrieval import Embedder, InputError, Recipe
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation.analyze import attention, effective_rank, geometry, mean_cosine

TEMPLATE = "Say: <PST> {text}!"
TEXTS = [" dog cat bird fish", " red green", " one two three four five six"]


def test_mean_cosine_and_effective_rank_are_what_they_are_defined_as():
    vectors = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert mean_cosine(vectors) == pytest.approx(cosines[~np.eye(20, dtype=bool)].mean(), abs=1e-6)
    assert effective_rank(np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(1, 5), np.ones(3)).astype(np.float32)) == pytest.approx(1)
    two = np.diag([3.0, 1.0]).astype(np.float32)
    assert effective_rank(two) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_geometry_is_of_the_vectors_an_embedder_gives(embedder, faq):
    texts = list(faq.documents.values())
    found = {(one.exit, one.readout, one.postprocess): one for one in geometry(embedder, texts)}
    assert len(found) == 5 * 2 * 4
    recipe = Recipe("{text}", embedder.recipe.document, [View(3, "mean", "center")])
    vectors = embedder.with_recipe(recipe).fit(texts).embed_documents(texts)
    one = found[3, "mean", "center"]
    assert one.anisotropy == pytest.approx(mean_cosine(vectors), abs=1e-5)
    assert one.effective_rank == pytest.approx(effective_rank(vectors), rel=1e-4)
    assert found[3, "mean", "none"].anisotropy > abs(one.anisotropy)
    with pytest.raises(InputError, match="too few"):
        geometry(embedder, ["one"])


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_attention_to_the_slot_is_that_of_transformers(tiny_folder, kind):
    folder = tiny_folder(kind)
    recipe = Recipe(TEMPLATE, TEMPLATE, [View(4)], Prepend("tp", 1, 2), clean=False)
    embedder = Embedder.from_pretrained(folder, recipe=recipe, dtype="float32", device="cpu")
    before = embedder.embed_documents(TEXTS)
    found = attention(embedder, TEXTS)
    assert np.array_equal(embedder.embed_documents(TEXTS), before)
    assert [(one.block, one.prepending) for one in found] == [(i, on) for on in (False, True) for i in range(4)]
    assert found[0].early == pytest.approx(found[4].early)  # nothing is rewired before the first block
    assert found[1].early != pytest.approx(found[5].early, rel=1e-3)

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = embedder.backbone.tokenizer
    shares = []
    for text in TEXTS:
        head = tokenizer("Say: ").input_ids
        rest = tokenizer(f" {text}!", add_special_tokens=False).input_ids
        words = tokenizer(text, add_special_tokens=False).input_ids
        embeds = model.get_input_embeddings()(torch.tensor([[*head, 0, *rest]])).detach()
        embeds[0, len(head)] = 0
        with torch.inference_mode():
            weights = model(inputs_embeds=embeds, output_attentions=True, use_cache=False).attentions
        start = len(head) + 1 + len(rest) - len(words) - 1  # the text ends before the exclamation mark
        middle = start + len(words) // 2
        of_slot = [weight[0, :, :, len(head)].mean(dim=0) for weight in weights]
        shares.append([(float(w[start:middle].mean()), float(w[middle : start + len(words)].mean())) for w in of_slot])
    for one, (early, late) in zip(found[:4], np.mean(shares, axis=0), strict=True):
        assert (one.early, one.late) == pytest.approx((early, late), rel=1e-3)


def test_without_a_slot_there_is_nothing_to_look_at(embedder):
    with pytest.raises(InputError, match="no slot that is rewired"):
        attention(embedder, TEXTS)
    recipe = Recipe(TEMPLATE, TEMPLATE, [View(4)], Prepend("tp", 1, 2))
    with pytest.raises(InputError, match="none has two tokens"):
        attention(embedder.with_recipe(recipe), [""])
