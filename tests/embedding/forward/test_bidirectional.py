"""A bidirectional mask against attention written out: one text at a time, no cache, no padding, no mask of another's."""

import threading

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AutoModel

from tests import architectures, tiny
from tp_retrieval import Embedder, InputError, Recipe, RecipeError, UnsupportedModelError
from tp_retrieval.embedding.forward.attention import slot_attention
from tp_retrieval.embedding.forward.bidirectional import bidirectional
from tp_retrieval.embedding.forward.forward import Prefix, caches_prefix, check_bidirectional, hidden_states
from tp_retrieval.embedding.forward.tokens import TokenBatch
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend, View

HEAD, TEMPLATE, PLAIN = "Say this now:", "Say this now:<PST> {text} !", "Say this now: {text} !"
TEXTS = [
    "dog",
    "red green blue white dark cold rain snow wind sun moon",
    "one two three four",
    "a b c d e f g h i j k l m n o p q r s",  # longer than the window of the models that have one
]
VIEWS = [View(1), View(2), View(2, "mean"), View(4), View(None, "mean")]
QUICK = {"llama", "gemma3_text", "mamba", "jamba", "falcon_h1", "bloom", "gemma3n_text", "deepseek_v32"}
"""One of each way in which models differ; the others are slow tests."""
REFUSED = {"gpt_neo", "mpt"}
"""Kinds whose prompts can be cached, but whose blocks read forwards whatever their mask, or take none."""


def wider(start, stop):
    return Recipe(TEMPLATE, TEMPLATE, VIEWS, Prepend("bidirectional", start, stop), clean=False)


@pytest.fixture(params=tiny.KINDS)
def folder(request, tiny_folder):
    return tiny_folder(request.param)


def slow_attention(scope, begin):
    """Return an attention function whose tokens from `begin` on see each other in the blocks of the scope."""

    def attention(module, query, key, value, attention_mask, scaling=None, sliding_window=None, softcap=None, **kwargs):
        groups, length = query.shape[1] // key.shape[1], query.shape[2]
        outputs = torch.zeros_like(query)
        for head in range(query.shape[1]):
            for i in range(length):
                seen = []
                for j in range(length):
                    ahead = j > i and module.layer_idx in range(*scope) and i >= begin
                    near = sliding_window is None or abs(i - j) < sliding_window
                    if (j <= i or ahead) and near:
                        seen.append(j)
                scores = key[0, head // groups, seen] @ query[0, head, i]
                scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                outputs[0, head, i] = scores.softmax(dim=0) @ value[0, head // groups, seen]
        return outputs.transpose(1, 2).contiguous(), None

    return attention


def reference(folder, tokenizer, text, scope):
    """Return the vectors of VIEWS."""
    head = tokenizer(HEAD).input_ids
    rest = tokenizer(f" {text} !", add_special_tokens=False).input_ids
    inside = slice(len(head), len(head) + len(rest) - len(tokenizer(" !", add_special_tokens=False).input_ids))
    AttentionInterface.register("slow", slow_attention(scope, len(head)))
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="slow").eval()
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    states = {}

    def keep(i):
        return lambda _, __, out: states.update({i: (out[0] if isinstance(out, tuple) else out)[0]})

    for i, block in enumerate(blocks, 1):
        block.register_forward_hook(keep(i))
    with torch.inference_mode():
        states[None] = model(torch.tensor([head + rest]), use_cache=False).last_hidden_state[0]
    vectors = [states[v.exit][-1] if v.readout == "last" else states[v.exit][inside].mean(dim=0) for v in VIEWS]
    return torch.cat(vectors).numpy()


@pytest.mark.parametrize("scope", [(1, 2), (0, 4)])
@pytest.mark.filterwarnings("ignore:.*[Ss]low.*")
def test_vectors_are_those_of_attention_written_out(folder, scope):
    embedder = Embedder.from_pretrained(folder, recipe=wider(*scope), dtype="float32", device="cpu")
    got = embedder.embed_documents(TEXTS)
    causal = embedder.with_recipe(Recipe(PLAIN, PLAIN, VIEWS, clean=False)).embed_documents(TEXTS)
    for text, vector, other in zip(TEXTS, got, causal, strict=True):
        want = reference(folder, embedder.backbone.tokenizer, text, scope)
        assert np.linalg.norm(vector - want) <= 1e-5 * np.linalg.norm(want), text
        assert np.linalg.norm(vector - other) > 1e-3 * np.linalg.norm(want), "the mask changes something here"
    alone = np.concatenate([embedder.embed_documents([text]) for text in TEXTS])
    assert np.allclose(got, alone, rtol=1e-4, atol=1e-5), "padding changes nothing"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_implementation_with_a_mask_does_the_same(tiny_folder, implementation):
    kwargs = {"attn_implementation": implementation}
    loaded = [
        Embedder.from_pretrained(tiny_folder("gemma3"), recipe=wider(0, 3), dtype="float32", device="cpu", model_kwargs=k)
        for k in ({}, kwargs)
    ]
    assert loaded[1].backbone.attention == implementation
    assert np.allclose(*(one.embed_documents(TEXTS) for one in loaded), rtol=1e-4, atol=1e-5)


def test_the_tokens_are_those_of_the_plain_prompt_and_blocks_before_the_scope_are_causal(tiny_folder):
    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=wider(2, 4), dtype="float32", device="cpu")
    plain = embedder.with_recipe(Recipe(PLAIN, PLAIN, VIEWS, clean=False))
    width = embedder.backbone.width
    got, want = embedder.embed_documents(TEXTS), plain.embed_documents(TEXTS)
    assert np.allclose(got[:, : 3 * width], want[:, : 3 * width], rtol=1e-4, atol=1e-5)
    assert not np.allclose(got[:, 3 * width :], want[:, 3 * width :], rtol=1e-2)


def test_a_template_without_the_slot_is_causal_and_hooks_are_gone_afterwards(tiny_folder):
    recipe = Recipe(PLAIN, TEMPLATE, VIEWS, Prepend("bidirectional", 0, 4), clean=False)
    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=recipe, dtype="float32", device="cpu")
    plain = embedder.with_recipe(Recipe(PLAIN, PLAIN, VIEWS, clean=False))
    want = plain.embed_queries(TEXTS)
    assert np.array_equal(embedder.embed_queries(TEXTS), want)
    assert not np.allclose(embedder.embed_documents(TEXTS), want, rtol=1e-2)
    assert np.array_equal(embedder.embed_queries(TEXTS), want)
    assert all(not block._forward_pre_hooks for block in embedder.backbone.blocks)


def test_the_mask_is_wider_in_its_own_thread_only(tiny_folder):
    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=wider(0, 4), dtype="float32", device="cpu")
    decoder, ids = embedder.backbone.decoder, torch.tensor([[5, 6, 7, 8]])
    batch = TokenBatch((), ids, None, torch.tensor([3]), torch.tensor([[0, 4]]), bidirectional=0)
    with torch.inference_mode():
        want, got = decoder(ids).last_hidden_state, []

        def generate():
            with torch.inference_mode():
                got.append(decoder(ids).last_hidden_state)

        with bidirectional(list(embedder.backbone.blocks), Prepend("bidirectional", 0, 4), batch, 0, "sdpa"):
            thread = threading.Thread(target=generate)
            thread.start()
            thread.join()
            assert not torch.allclose(decoder(ids).last_hidden_state, want)
    assert torch.equal(got[0], want)


def test_what_takes_no_such_mask_is_refused(tiny_folder):
    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=wider(0, 2), dtype="float32", device="cpu")
    blocks, prepend = list(embedder.backbone.blocks), Prepend("bidirectional", 0, 2)
    batch = TokenBatch((), torch.tensor([[5, 6]]), None, torch.tensor([1]), torch.tensor([[0, 2]]), bidirectional=0)
    with (
        pytest.raises(UnsupportedModelError, match=r"'flash_attention_2'.*attn_implementation=sdpa or eager"),
        bidirectional(blocks, prepend, batch, 0, "flash_attention_2"),
    ):
        pass
    hidden = torch.zeros(1, 2, embedder.backbone.width)
    for mask, reason in (
        (torch.ones(1, 2), r"attention mask of \(1, 2\) is not one of queries and keys"),
        (torch.tensor([[[[0.5, -1e38], [0.0, 0.5]]]]), "holds positions"),
    ):
        with (
            pytest.raises(UnsupportedModelError, match=reason),
            bidirectional(blocks, prepend, batch, 0, "sdpa"),
        ):
            blocks[0](hidden, attention_mask=mask)
    layer = torch.nn.Linear(2, 2)
    with (
        pytest.raises(UnsupportedModelError, match="Linear takes no attention mask"),
        bidirectional([layer], Prepend("bidirectional", 0, 1), batch, 0, "sdpa"),
    ):
        layer(torch.zeros(2))


def test_recipes_say_what_bidirectional_needs(tiny_folder):
    recipe = wider(1, 2)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match=r"prepend: .* must be null, because no template has the slot"):
        Recipe(PLAIN, PLAIN, VIEWS, Prepend("bidirectional", 1, 2))
    with pytest.raises(RecipeError, match=r"prepend\.stop: 1 must be more than"):
        Prepend("bidirectional", 1, 1)
    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=recipe, dtype="float32", device="cpu")
    with pytest.raises(InputError, match="no slot that is rewired"):
        slot_attention(embedder, TEXTS)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in architectures.KINDS]
)
def test_every_model_sees_what_follows_or_is_refused(kind):
    if not architectures.recorded()[kind].startswith("works"):
        return
    backbone = Backbone.wrap(architectures.model(kind), architectures.tokenizer())
    prepend = Prepend("bidirectional", 0, 2)
    if not caches_prefix(backbone) or kind in REFUSED:
        with pytest.raises(UnsupportedModelError, match="bidirectional: "):
            check_bidirectional(backbone, prepend)
        return
    check_bidirectional(backbone, prepend)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 0, 0], [5, 6, 7, 9, 0, 0]])
    last, text = torch.tensor([5, 3, 3]), torch.tensor([[0, 6], [0, 4], [0, 4]])
    batch = TokenBatch((), ids, None, last, text, bidirectional=0)
    alone = TokenBatch((), ids[1:2, :4], None, last[1:2], text[1:2], bidirectional=0)
    with torch.inference_mode():
        (states,) = hidden_states(backbone, batch, Prefix(0), {2}, prepend).values()
        (one,) = hidden_states(backbone, alone, Prefix(0), {2}, prepend).values()
    assert torch.allclose(states[1, :4], one[0], rtol=1e-3, atol=1e-4), "padding is not seen"
    assert (states[1, 0] - states[2, 0]).abs().max() > 1e-5, "the first token sees the last"
