"""Batches of rows: which rows share one, and what happens where memory runs out."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tp_retrieval import OutOfMemoryError, Template
from tp_retrieval.embedding.forward.batching import Batching, batches, length
from tp_retrieval.embedding.forward.tokens import Row, TemplateTokenizer, plain_tokenizer


def row(count, prefix=0):
    return Row(list(range(count)), prefix, None, (prefix, count), 0)


def rows_of_any_length(seed, prefixes=(0, 7)):
    rng = np.random.default_rng(seed)
    return [row(int(rng.integers(8, 60)), int(rng.choice(prefixes))) for _ in range(40)]


def greedy(rows, budget):
    """Fill batches from the longest row down, a prefix at a time: the rule, written out."""
    groups = []
    for prefix in sorted({row.prefix for row in rows}, reverse=True):
        numbers = [i for i, row in enumerate(rows) if row.prefix == prefix]
        numbers.sort(key=lambda i: -len(rows[i].ids))
        while numbers:
            width = max(1, budget // (len(rows[numbers[0]].ids) - prefix))
            groups.append(numbers[:width])
            numbers = numbers[width:]
    return groups


def test_batches_cover_every_row_once_within_the_budget(smol_folder):
    tokenizer = AutoTokenizer.from_pretrained(smol_folder)
    template = Template('This sentence : "{text}" means in one word:"')
    make = TemplateTokenizer(tokenizer, plain_tokenizer(tokenizer), template, 512)
    rows = make.rows(["dog " * n for n in (1, 90, 3, 40, 200, 7, 1, 1, 30)])
    groups = batches(rows, 120)
    assert sorted(i for group in groups for i in group) == list(range(9))
    for group in groups:
        longest = max(len(rows[i].ids) - rows[i].prefix for i in group)
        assert len(group) == 1 or longest * len(group) <= 120
    assert len(groups) < 9


@pytest.mark.parametrize("budget", [1, 55, 200, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_batches_are_those_of_the_greedy_rule(seed, budget):
    rows = rows_of_any_length(seed)
    assert batches(rows, budget) == greedy(rows, budget)


def test_a_row_beyond_the_budget_has_a_batch_of_its_own_and_no_rows_have_none():
    assert batches([row(5), row(100), row(5)], 10) == [[1], [0, 2]]
    assert batches([], 10) == []


def test_length_leaves_the_cached_prefix_out():
    assert [length(row(12)), length(row(12, 7))] == [12, 5]


@pytest.mark.parametrize(("kind", "budget"), [("cpu", 2048), ("cuda", 32768), ("mps", 32768)])
def test_the_budget_is_that_of_the_device(kind, budget):
    assert Batching(torch.device(kind)).budget == budget


class Memory:
    """A forward pass that takes so many padded tokens and no more; it returns the sum of each row's ids."""

    def __init__(self, tokens, error=MemoryError):
        self.tokens, self.error, self.sizes = tokens, error, []

    def __call__(self, rows):
        padded = len(rows) * max(map(length, rows))
        if padded > self.tokens:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        self.sizes.append(padded)
        return [sum(row.ids) for row in rows]


def results(batching, rows, forward):
    by_row = {}
    for numbers, values in batching.run(rows, forward):
        by_row |= dict(zip(numbers, values, strict=True))
    return [by_row[i] for i in range(len(rows))]


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, torch.OutOfMemoryError])
@pytest.mark.parametrize("tokens", [60, 130, 1000, 10_000])
def test_every_row_gets_its_result_however_little_fits(tokens, error):
    rows = rows_of_any_length(0)
    assert results(Batching(torch.device("cpu")), rows, Memory(tokens, error)) == [sum(row.ids) for row in rows]


def test_a_smaller_budget_is_kept_for_the_next_run():
    batching, rows = Batching(torch.device("cpu")), [row(50) for _ in range(12)]
    memory = Memory(300)
    results(batching, rows, memory)
    assert memory.sizes == [300, 300]
    assert batching.budget == 300
    calls = []

    def counted(batch):
        calls.append(len(batch))
        return [0] * len(batch)

    results(batching, rows, counted)
    assert calls == [6, 6]
    assert batching.budget == 300


def test_a_failed_batch_lowers_the_budget_to_half_of_its_own_size_however_short():
    batching = Batching(torch.device("cpu"))
    results(batching, [row(10) for _ in range(8)], Memory(40))
    assert batching.budget == 40


def test_a_row_that_does_not_fit_alone_is_named_by_its_length():
    with pytest.raises(OutOfMemoryError, match="a text of 61 tokens does not fit in memory alone; lower max_tokens"):
        results(Batching(torch.device("cpu")), [row(5), row(61, 1)], Memory(20))


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")])
def test_any_other_error_is_raised_after_one_attempt(error):
    calls = []

    def broken(batch):
        calls.append(len(batch))
        raise error

    batching = Batching(torch.device("cpu"))
    with pytest.raises(type(error), match=str(error)):
        results(batching, [row(5), row(6)], broken)
    assert (calls, batching.budget) == ([2], 2048)


@pytest.mark.parametrize("count", [40, 4000])
def test_batches_planned_before_a_failure_do_not_lower_the_budget_below_what_fits(count):
    """Memory for 300 tokens is enough for a budget of at least half of that, however many rows there are."""
    batching = Batching(torch.device("cpu"))
    results(batching, [row(50) for _ in range(count)], Memory(300))
    assert 150 <= batching.budget <= 300
