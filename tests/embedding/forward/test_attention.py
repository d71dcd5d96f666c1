"""Attention to the slot against transformers' own weights."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tests import tiny
from tp_retrieval import Embedder, InputError, Recipe
from tp_retrieval.embedding.forward.attention import slot_attention
from tp_retrieval.embedding.recipe import Prepend, View

TEMPLATE = "Say: <PST> {text}!"
TEXTS = [" dog cat bird fish", " red green", " one two three four five six"]


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_attention_to_the_slot_is_that_of_transformers(tiny_folder, kind):
    folder = tiny_folder(kind)
    recipe = Recipe(TEMPLATE, TEMPLATE, [View(4)], Prepend("tp", 1, 2), clean=False)
    embedder = Embedder.from_pretrained(folder, recipe=recipe, dtype="float32", device="cpu")
    before = embedder.embed_documents(TEXTS)
    found = slot_attention(embedder, TEXTS)
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
        slot_attention(embedder, TEXTS)
    recipe = Recipe(TEMPLATE, TEMPLATE, [View(4)], Prepend("tp", 1, 2))
    with pytest.raises(InputError, match="none has two tokens"):
        slot_attention(embedder.with_recipe(recipe), [""])
