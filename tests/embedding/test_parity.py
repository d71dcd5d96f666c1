"""Vectors equal the slow reference: every architecture, with and without prepending, middle and last exits."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests import reference, tiny
from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import Prepend, View

TEXTS = [
    "A man is playing a guitar",
    'She said "why?"',
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den Deich, 日本語も書ける 😀 and on it goes for some more words?",
]
PLAIN = 'This sentence : "{text}" means in one word:"'
SLOTTED = 'This sentence : <PST> "{text}" means in one word:"'
VIEWS = [
    View(0),
    View(2),
    View(2, "mean"),
    View(3, "last+mean"),
    View(4),
    View(None),
    View(None, "mean"),
]


def relative_error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def expected(model, tokenizer, template, text, views, **scope):
    states, normed, inside = reference.hidden_states(model, tokenizer, template, text, **scope)
    return np.concatenate([reference.read(states, normed, inside, v.exit, v.readout).numpy() for v in views])


@pytest.fixture(scope="module", params=tiny.KINDS)
def folder(request, tiny_folder):
    return tiny_folder(request.param)


@pytest.fixture(scope="module")
def loaded(folder):
    """The reference's model and tokenizer, and an embedder of every block."""
    model, tokenizer = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    whole = Recipe("{text}", "{text}", [View(None)])
    return model, tokenizer, Embedder.from_pretrained(folder, recipe=whole, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("template", "prepend"),
    [
        (PLAIN, None),
        ("{text}", None),
        (SLOTTED, Prepend("tp", 1, 2)),
        (SLOTTED, Prepend("tp", 0, 4)),
        ("<PST> {text}", Prepend("tp", 1, 3)),
        (SLOTTED, Prepend("tp-mean", 1, 3)),
    ],
    ids=["plain", "bare", "tp-1-2", "tp-0-4", "tp-empty-head", "tp-mean"],
)
def test_every_architecture_equals_the_reference(loaded, template, prepend):
    model, tokenizer, whole = loaded
    embedder = whole.with_recipe(Recipe(template, template, VIEWS, prepend))
    scope = {} if prepend is None else {"start": prepend.start, "stop": prepend.stop, "kind": prepend.kind}
    got = embedder.embed_documents(TEXTS)
    for text, vector in zip(TEXTS, got, strict=True):
        want = expected(model, tokenizer, template, text, VIEWS, **scope)
        for view, g, w in zip(VIEWS, np.split(vector, len(VIEWS)), np.split(want, len(VIEWS)), strict=True):
            assert relative_error(g, w) < 1e-4, (view, text)


def test_only_the_blocks_up_to_the_deepest_exit_are_loaded_and_equal_the_whole_model(folder):
    views = [View(1), View(2, "mean")]
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    embedder = Embedder.from_pretrained(folder, recipe=Recipe(PLAIN, PLAIN, views), dtype="float32", device="cpu")
    assert len(embedder._backbone.blocks) == 2
    got = embedder.embed_documents(TEXTS[:1])[0]
    assert relative_error(got, expected(model, tokenizer, PLAIN, TEXTS[0], views)) < 1e-4


@pytest.mark.parametrize("scope", [(1, 2), (1, 7), (20, 26)])
@pytest.mark.parametrize("name", ["prompteol-tp", "cot-tp", "ke-tp"])
def test_the_embedded_model_equals_the_reference(smol_model, name, scope):
    model, tokenizer = smol_model
    named = Recipe.load(name)
    views = [View(27), View(-1), View(None)]
    recipe = Recipe(named.query, named.document, views, Prepend("tp", *scope))
    got = Embedder.from_pretrained(recipe=recipe, dtype="float32").embed_queries(TEXTS)
    source = named.query[0].source
    for text, vector in zip(TEXTS, got, strict=True):
        resolved = [View(27), View(29), View(None)]
        want = expected(model, tokenizer, source, text, resolved, start=scope[0], stop=scope[1])
        for view, g, w in zip(views, np.split(vector, 3), np.split(want, 3), strict=True):
            assert relative_error(g, w) < 1e-4, (view, text)


def test_several_templates_are_averaged_view_by_view(smol_model):
    model, tokenizer = smol_model
    recipe = Recipe.load("metaeol-tp")
    assert len(recipe.query) == 8
    got = Embedder.from_pretrained(recipe=recipe, dtype="float32").embed_queries(TEXTS[:1])[0]
    each = [expected(model, tokenizer, t.source, TEXTS[0], [View(29)], start=1, stop=2) for t in recipe.query]
    assert relative_error(got, np.mean(each, axis=0)) < 1e-4


def test_echo_reads_the_second_copy_of_the_text(loaded):
    model, tokenizer, whole = loaded
    views = [View(3, "mean"), View(4)]
    recipe = Recipe("{text}", "Rewrite:<PST>. Rewritten:{text}", views, Prepend("echo"), clean=False)
    copy = tokenizer(" dog cat bird", add_special_tokens=False).input_ids
    first = tokenizer("Rewrite:").input_ids + copy + tokenizer(". Rewritten:", add_special_tokens=False).input_ids
    with torch.inference_mode():
        states = model(torch.tensor([first + copy]), output_hidden_states=True, use_cache=False).hidden_states
    want = torch.cat([states[3][0, len(first) :].mean(dim=0), after_all_blocks(model, first + copy)])
    got = whole.with_recipe(recipe).embed_documents([" dog cat bird", "another, much longer text in the same batch"])[0]
    assert relative_error(got, want.numpy()) < 1e-4


def after_all_blocks(model, ids):
    """The last token after all blocks, before the final norm, which transformers' last hidden state has behind it."""
    kept = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    handle = blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out))
    with torch.inference_mode():
        model(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return kept[0][0, -1]


def test_htp_copies_the_end_of_every_sentence(loaded):
    """Against a pass without cache or batch, in which hooks of our own do the copying."""
    model, tokenizer, whole = loaded
    views = [View(2, "mean"), View(4, "mean"), View(4)]
    recipe = Recipe("{text}", "Read: <PST>{text} !", views, Prepend("htp", 1, 3), clean=False)
    text = " One dog. Two cats. Three"
    embedder = whole.with_recipe(recipe)
    got = embedder.embed_documents([text, " One. Two. Three. Four. Five. Six.", " none"])[0]

    parts = [tokenizer(part, add_special_tokens=False).input_ids for part in (" One dog.", " Two cats.", " Three")]
    ids = [*tokenizer("Read: ").input_ids]
    slots = {len(ids) + i: None for i in range(3)}
    ids, inside = ids + [0] * 3, []
    for i, part in enumerate(parts):
        slots[len(ids)] = len(ids) + len(part)
        slots[list(slots)[i]] = len(ids) + len(part)
        inside += range(len(ids) + 1, len(ids) + 1 + len(part))
        ids = [*ids, 0, *part]
    ids += tokenizer(" !", add_special_tokens=False).input_ids
    embeds = model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
    embeds[0, list(slots)] = 0
    states = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)

    def copying(i):
        def hook(module, args):
            states.append(args[0][0].clone())
            if not 1 <= i < 3:
                return None
            hidden = args[0].clone()
            hidden[0, list(slots)] = hidden[0, list(slots.values())]
            return (hidden, *args[1:])

        return hook

    handles = [block.register_forward_pre_hook(copying(i)) for i, block in enumerate(blocks)]
    keep = blocks[-1].register_forward_hook(
        lambda _, __, out: states.append((out[0] if isinstance(out, tuple) else out)[0])
    )
    with torch.inference_mode():
        model(inputs_embeds=embeds, use_cache=False)
    for handle in [*handles, keep]:
        handle.remove()
    want = torch.cat([states[2][inside].mean(dim=0), states[4][inside].mean(dim=0), states[4][-1]])
    assert relative_error(got, want.numpy()) < 1e-4
