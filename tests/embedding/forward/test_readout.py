"""Readouts against numpy, row by row; what is not read is NaN."""

import numpy as np
import pytest
import torch

from tp_retrieval.embedding.forward.readout import read
from tp_retrieval.embedding.forward.tokens import TokenBatch

LAST = [6, 3, 5, 4]
TEXT = [(1, 5), (0, 2), (2, 3), (4, 4)]
"""Text ranges of four rows; the last row has no text."""


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def hidden(request):
    """States `(4, 7, 8)` that are NaN behind each row's last token."""
    states = torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)).to(request.param)
    for i, last in enumerate(LAST):
        states[i, last + 1 :] = torch.nan
    return states


def batch(slots=None):
    return TokenBatch((), torch.zeros(4, 7, dtype=torch.int64), slots, torch.tensor(LAST), torch.tensor(TEXT))


def last_of(hidden):
    return np.stack([hidden[i, last].float().numpy() for i, last in enumerate(LAST)])


def mean_of(hidden, slots=None):
    means = []
    for i, (start, stop) in enumerate(TEXT):
        own = [p for p in range(start, stop) if slots is None or p not in slots[i]]
        states = hidden[i].float().numpy().astype(np.float64)
        means.append(states[own].mean(axis=0) if own else states[LAST[i]])
    return np.stack(means)


def unit(vectors):
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


def test_last_is_the_last_token_and_not_the_padding(hidden):
    vectors = read(hidden, batch(), "last")
    assert vectors.dtype == torch.float32
    assert (vectors.numpy() == last_of(hidden)).all()


def test_mean_is_of_the_text_alone_and_the_last_token_without_text(hidden):
    vectors = read(hidden, batch(), "mean")
    assert vectors.dtype == torch.float32
    assert vectors.numpy() == pytest.approx(mean_of(hidden), abs=1e-6)
    assert (vectors[3] == hidden[3, LAST[3]].float()).all()


SLOTS = torch.tensor([[[2, 6], [4, 3]], [[0, 3], [0, 3]], [[2, 5], [2, 5]], [[0, 4], [0, 4]]])
"""Slots and the tokens they copy; the third row's text is a slot and nothing else."""


def test_slots_within_the_text_are_left_out_of_the_mean(hidden):
    slots = [{int(slot) for slot in pairs[:, 0]} for pairs in SLOTS]
    want = mean_of(hidden, slots)
    for i, numbers in enumerate(slots):
        hidden[i, list(numbers)] = torch.nan
    vectors = read(hidden, batch(SLOTS), "mean")
    assert vectors.numpy() == pytest.approx(want, abs=1e-6)
    assert (vectors[2] == hidden[2, LAST[2]].float()).all()


@pytest.mark.parametrize("slots", [None, SLOTS], ids=["without slots", "with slots"])
def test_last_and_mean_is_the_average_of_both_at_unit_length(hidden, slots):
    numbers = None if slots is None else [{int(slot) for slot in pairs[:, 0]} for pairs in slots]
    want = (unit(last_of(hidden)) + unit(mean_of(hidden, numbers))) / 2
    assert read(hidden, batch(slots), "last+mean").numpy() == pytest.approx(want, abs=1e-6)


def test_a_vector_does_not_depend_on_the_rows_beside_it(hidden):
    for readout in ("last", "mean", "last+mean"):
        whole = read(hidden, batch(SLOTS), readout)
        for i in range(4):
            part = TokenBatch(
                (), torch.zeros(1, 7), SLOTS[i : i + 1], torch.tensor(LAST[i : i + 1]), torch.tensor(TEXT[i : i + 1])
            )
            assert torch.equal(read(hidden[i : i + 1], part, readout)[0], whole[i])


@pytest.mark.parametrize("readout", ["last", "mean", "last+mean"])
def test_the_states_are_left_as_they_are(hidden, readout):
    before = hidden.clone()
    read(hidden, batch(SLOTS), readout)
    assert torch.equal(hidden.nan_to_num(9.0), before.nan_to_num(9.0))
