"""Every causal language model that transformers knows, tiny and random: what the package gives equals the model's own.

The states of the model itself are read by hooks on its blocks, one text at a time, the whole row, without any cache.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import architectures
from tp_retrieval import Embedder, Recipe, Reranker
from tp_retrieval.embedding.forward.readout import read
from tp_retrieval.embedding.forward.tokens import collate
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend, View

QUICK = {"llama", "mamba", "gemma3n_text", "deepseek_v4", "qwen3_5_text"}
"""One of each way in which models differ; the others are slow tests."""

IN_MEMORY_ALONE = {"emu3"}
"""Kinds that transformers itself can't load from what it saved."""

KINDS = [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in architectures.KINDS]
TEXTS = ["A dog.", "The green river runs under an old house.", "Cats", "Why not?"]
PLAIN, SLOTTED = 'The text : "{text}" is:"', 'The text : <PST> "{text}" is:"'


def states_of(backbone, row, prepend=None):
    """Return the states before every block, after the last one and after the final norm, each `(1, T, H)`."""
    ids, states = torch.tensor([row.ids]), []

    def before(number):
        def hook(module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            states.append(backbone.merged(hidden).clone())
            if prepend is None or not prepend.start <= number < prepend.stop:
                return None
            hidden = hidden.clone()
            tokens = hidden.movedim(0, 2) if backbone.streams_first else hidden
            tokens[0, row.slot] = tokens[0, -1]
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def after(module, args, output):
        states.append(backbone.merged(output[0] if isinstance(output, (tuple, list)) else output).clone())

    def clear(module, args, embeds):
        if row.slot is not None:
            embeds[:, row.slot] = 0.0

    blocks = backbone.blocks
    handles = [block.register_forward_pre_hook(before(i), with_kwargs=True) for i, block in enumerate(blocks)]
    handles += [blocks[-1].register_forward_hook(after)]
    handles += [backbone.decoder.get_input_embeddings().register_forward_hook(clear)]
    with torch.inference_mode():
        normed = backbone.decoder(ids, use_cache=False).last_hidden_state
    for handle in handles:
        handle.remove()
    return [*states, normed]


def expected(embedder, text):
    """Return the vector of a text, slowly."""
    tokenizer = embedder._tokenizers[embedder.recipe.document[0]]
    (row,) = tokenizer.rows([text])
    row = replace(row, prefix=0)
    states = states_of(embedder.backbone, row, embedder.recipe.prepend)
    batch, exits = collate([row]), embedder.recipe.exits(embedder.backbone.n_blocks)
    views = zip(exits, embedder.recipe.views, strict=True)
    parts = [read(states[-1 if exit_ is None else exit_], batch, view.readout) for exit_, view in views]
    return torch.cat(parts, dim=1)[0].numpy()


def assert_close(got, want):
    scale = np.abs(want).max(axis=-1, keepdims=True)
    assert np.abs((got - want) / scale).max() < 2e-4


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
