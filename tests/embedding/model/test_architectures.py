"""Every causal language model that transformers knows, tiny and random: what the package gives equals the model's own."""

import numpy as np
import pytest
import torch

from tests import architectures
from tests.model_states import assert_close, expected
from tp_retrieval import Embedder, Recipe, Reranker
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend, View

QUICK = {"llama", "mamba", "gemma3n_text", "deepseek_v4", "qwen3_5_text"}
"""One of each way in which models differ; the others are slow tests."""

IN_MEMORY_ALONE = {"emu3"}
"""Kinds that transformers itself can't load from what it saved."""

KINDS = [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in architectures.KINDS]
TEXTS = ["A dog.", "The green river runs under an old house.", "Cats", "Why not?"]
PLAIN, SLOTTED = 'The text : "{text}" is:"', 'The text : <PST> "{text}" is:"'


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_does_what_the_table_says(kind, tmp_path):
    try:
        model = architectures.model(kind)
    except architectures.NotBuiltError:
        assert architectures.recorded()[kind].startswith("not tried")
        return
    said = architectures.outcome(model)
    assert architectures.recorded()[kind] == said
    if said.startswith("refused"):
        return
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    with torch.inference_mode():
        before = model(ids, use_cache=False).logits
    backbone = Backbone.wrap(model, architectures.tokenizer())
    views = [View(i, readout) for i in (0, 1, 2, backbone.n_blocks, None) for readout in ("mean", "last")]
    for template, prepend in ((PLAIN, None), (SLOTTED, Prepend("tp", 1, 2))):
        embedder = Embedder(backbone, Recipe(template, template, views, prepend, clean=False))
        together = embedder.embed_documents(TEXTS)
        assert_close(together, np.stack([expected(embedder, text) for text in TEXTS]))
        assert_close(together, np.concatenate([embedder.embed_documents([text]) for text in TEXTS]))
    if kind not in IN_MEMORY_ALONE:
        assert_the_same_from_a_folder(model, backbone, tmp_path)
    if "no reranking" not in said:
        prompt = "Passage: {document}\nQuestion: {query}"
        scores = Reranker(embedder, prompt=prompt).score("Why?", TEXTS)
        for text, score in zip(TEXTS, scores, strict=True):
            row = architectures.tokenizer()(f"Passage: {text}\nQuestion: Why?").input_ids
            with torch.inference_mode():
                told = model(torch.tensor([row]), use_cache=False).logits[0].double().log_softmax(dim=-1)
            asked = range(len(row) - len("Why?"), len(row))
            assert float(score) == pytest.approx(np.mean([float(told[at - 1, row[at]]) for at in asked]), abs=2e-3)
    with torch.inference_mode():
        assert torch.equal(model(ids, use_cache=False).logits, before)


def assert_the_same_from_a_folder(model, backbone, folder):
    """Compare the vectors and the fingerprint of a model in memory with those of its saved one, loaded as deep as read."""
    cut = Recipe(PLAIN, PLAIN, [View(1), View(2, "mean")], clean=False)
    in_memory = Embedder(backbone, cut)
    model.save_pretrained(folder)
    architectures.tokenizer().save_pretrained(folder)
    loaded = Embedder.from_pretrained(folder, recipe=cut, dtype="float32", device="cpu")
    assert_close(loaded.embed_documents(TEXTS), in_memory.embed_documents(TEXTS))
    assert loaded.fingerprint == in_memory.fingerprint


def test_the_table_has_every_kind_and_most_work():
    recorded = architectures.recorded()
    assert set(recorded) == set(architectures.KINDS)
    assert sum(said.startswith("works") for said in recorded.values()) >= 130
