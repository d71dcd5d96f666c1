"""Token prepending against the method written out in numpy, on blocks that are one matrix each."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from tp_retrieval.embedding.forward.prepending import pre_hooks, prepending
from tp_retrieval.embedding.recipe import Prepend

BLOCKS, WIDTH, LENGTH = 5, 6, 8
LAST = [7, 4, 5]
SLOTS = torch.tensor([[[0, 7]], [[1, 4]], [[0, 5]]])
SENTENCES = torch.tensor([[[0, 3], [4, 7]], [[1, 4], [1, 4]], [[0, 2], [3, 5]]])


class Mixing(nn.Module):
    """A block whose tokens see those before them: a causal running mean, times a matrix."""

    def __init__(self, seed):
        super().__init__()
        draw = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.matrix = draw
        self.inputs = []

    def forward(self, hidden_states, scale=1.0):
        self.inputs.append(hidden_states)
        counts = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return scale * torch.tanh(hidden_states.cumsum(dim=1) / counts @ self.matrix)


@pytest.fixture
def blocks():
    return [Mixing(seed) for seed in range(BLOCKS)]


@pytest.fixture
def embeds():
    return torch.randn(3, LENGTH, WIDTH, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def run(blocks, hidden, by_keyword=False):
    for block in blocks:
        hidden = block(hidden_states=hidden) if by_keyword else block(hidden)
    return hidden


def reference(blocks, embeds, rewrite, start, stop):
    """Run the blocks in numpy; before each of `start..stop` every row is rewritten in place."""
    hidden = embeds.numpy().copy()
    for i, block in enumerate(blocks):
        if start <= i < stop:
            for row in range(len(hidden)):
                rewrite(i, row, hidden[row])
        counts = np.arange(1, LENGTH + 1)[:, None]
        hidden = np.tanh(hidden.cumsum(axis=1) / counts @ block.matrix.numpy())
    return hidden


def prepended(blocks, embeds, prepend, slots, sums=None, prefix=0, **options):
    with prepending(blocks, prepend, slots, torch.tensor(LAST), sums or {}, prefix):
        return run(blocks, embeds, **options).numpy()


@pytest.mark.parametrize("by_keyword", [False, True], ids=["by position", "by keyword"])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (2, 5)])
def test_tp_copies_the_last_token_into_the_slot_before_every_block_of_the_scope(blocks, embeds, start, stop, by_keyword):
    def rewrite(block, row, hidden):
        hidden[SLOTS[row, 0, 0]] = hidden[LAST[row]]

    want = reference(blocks, embeds, rewrite, start, stop)
    got = prepended(blocks, embeds, Prepend("tp", start, stop), SLOTS, by_keyword=by_keyword)
    assert got == pytest.approx(want, abs=1e-12)
    assert np.abs(got - run(blocks, embeds).numpy()).max() > 1e-3, "prepending changes something here"


def test_htp_copies_the_end_of_each_sentence_into_its_slot_all_at_once(blocks, embeds):
    def rewrite(block, row, hidden):
        before = hidden.copy()
        for slot, source in SENTENCES[row].tolist():
            hidden[slot] = before[source]

    want = reference(blocks, embeds, rewrite, 1, 4)
    assert prepended(blocks, embeds, Prepend("htp", 1, 4), SENTENCES) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("prefix", [0, 3])
def test_tp_mean_copies_the_mean_of_the_row_and_its_prefix_without_slot_and_padding(blocks, embeds, prefix):
    sums = {i: torch.full((WIDTH,), float(i)) for i in range(BLOCKS)} if prefix else {}

    def rewrite(block, row, hidden):
        real = [p for p in range(LAST[row] + 1) if p != SLOTS[row, 0, 0]]
        total = hidden[real].sum(axis=0) + (float(block) if prefix else 0.0)
        hidden[SLOTS[row, 0, 0]] = total / (len(real) + prefix)

    want = reference(blocks, embeds, rewrite, 1, 3)
    got = prepended(blocks, embeds, Prepend("tp-mean", 1, 3), SLOTS, sums, prefix)
    assert got == pytest.approx(want, abs=1e-6)  # the sum is of float32


@pytest.mark.parametrize(("prepend", "slots"), [(None, SLOTS), (Prepend("tp", 1, 3), None)])
def test_without_prepend_or_slots_nothing_changes(blocks, embeds, prepend, slots):
    assert (prepended(blocks, embeds, prepend, slots) == run(blocks, embeds).numpy()).all()


@pytest.mark.parametrize("kind", ["tp", "tp-mean"])
def test_the_output_of_the_block_before_is_left_as_it_was(blocks, embeds, kind):
    before = embeds.clone()
    prepended(blocks, embeds, Prepend(kind, 0, 2), SLOTS)
    assert torch.equal(embeds, before)
    assert not torch.equal(blocks[0].inputs[0], before)


def test_hooks_are_gone_afterwards_also_after_an_error(blocks, embeds):
    want = run(blocks, embeds)
    prepended(blocks, embeds, Prepend("tp", 0, 5), SLOTS)
    with pytest.raises(ZeroDivisionError), pre_hooks({blocks[0]: torch.zeros_like}):
        raise ZeroDivisionError
    assert all(not block._forward_pre_hooks for block in blocks)
    assert torch.equal(run(blocks, embeds), want)


def test_a_hook_replaces_the_states_or_leaves_them_and_passes_the_other_arguments_on(blocks, embeds):
    seen = []
    with pre_hooks({blocks[0]: lambda hidden: hidden * 2, blocks[1]: seen.append}):
        doubled = blocks[0](embeds, scale=3.0)
        left = blocks[1](embeds, 3.0)
    assert torch.equal(doubled, blocks[0](embeds * 2, scale=3.0))
    assert torch.equal(left, blocks[1](embeds, scale=3.0))
    assert len(seen) == 1
    assert seen[0] is embeds


def test_hooks_act_in_their_own_thread_only(embedder):
    ids = torch.tensor([[5, 6, 7, 8]])
    decoder, block = embedder._backbone.decoder, embedder._backbone.blocks[0]
    with torch.inference_mode():
        want = decoder(ids).last_hidden_state
    got = []

    def generate():
        with torch.inference_mode():
            got.append(decoder(ids).last_hidden_state)

    with pre_hooks({block: torch.zeros_like}):
        thread = threading.Thread(target=generate)
        thread.start()
        thread.join()
        with torch.inference_mode():
            assert not torch.allclose(decoder(ids).last_hidden_state, want)
    assert (got[0] == want).all()
