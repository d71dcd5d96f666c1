"""Relevance: a logistic regression on how far a cosine lies above others, and on the share of words, against numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.toy import documents
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.search.relevance import SAMPLE, WEIGHTS, QueryScale, sample_of

QUERY = "water in the house"


@pytest.fixture
def index(tmp_path, toy):
    with Index.create(tmp_path / "index", toy) as made:
        made.add(documents(50))
        yield made


def logistic(evidence):
    return 1 / (1 + math.exp(-evidence))


def dense_by_hand(cosines, place):
    """Return how far a cosine lies above the others, in expected maxima of so many normal variables."""
    others = np.delete(np.asarray(cosines, dtype=np.float64), place)
    squares = ((others - others.mean()) ** 2).sum() + 4 * 0.1**2
    spread = np.sqrt(squares / (len(others) + 4))
    return (cosines[place] - others.mean()) / spread / np.sqrt(2 * np.log(len(cosines) + 1))


def lexical_by_hand(score, words, rows):
    return np.sqrt(score / (words * 2.2 * np.log((rows - 0.5) / 1.5)))


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_relevance_is_what_the_formula_says(index, toy, mode):
    raw = toy.embed_documents([QUERY, *(d.text for d in documents(50))]).astype(np.float64)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    cosines = unit[1:] @ unit[0]
    weights = WEIGHTS[mode != "lexical", mode != "dense"]
    hits = index.search(QUERY, 20, mode=mode)
    assert len(hits) > 5
    for hit in hits:
        place = int(hit.document.id[1:])
        dense = dense_by_hand(cosines, place) if mode != "lexical" else 0
        lexical = lexical_by_hand(hit.parts["lexical"], 4, 50) if mode != "dense" else 0
        want = logistic(weights.dense * dense + weights.lexical * lexical + weights.constant)
        assert hit.relevance == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_of_one_kind_of_score_relevance_keeps_the_order(index, mode):
    found = [hit.relevance for hit in index.search(QUERY, 50, mode=mode)]
    assert found == sorted(found, reverse=True)
    assert all(0 < value < 1 for value in found)
    assert len({*found}) > 5


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("options", [{}, {"mmr": 0.7}, {"group_by": "n"}])
def test_the_least_relevance_leaves_out_what_is_below(index, mode, options):
    index.add([replace(document, metadata={"n": n % 20}) for n, document in enumerate(documents(50))])
    everything = index.search(QUERY, 50, mode=mode, **({} if "mmr" in options else options))
    least = sorted(hit.relevance for hit in everything)[len(everything) // 2]
    kept = index.search(QUERY, 50, mode=mode, min_relevance=least, **options)
    assert {hit.document.id for hit in kept} == {hit.document.id for hit in everything if hit.relevance >= least}
    assert index.search(QUERY, 5, mode=mode, min_relevance=1.0) == []


def test_a_vector_finds_the_same_relevance(index, toy):
    raw = toy.embed_queries([QUERY])
    by_text = [(hit.document.id, hit.relevance) for hit in index.search(QUERY, 9, mode="dense")]
    assert [(hit.document.id, hit.relevance) for hit in index.search_by_vector(raw[0], 9)] == by_text
    both = [(hit.document.id, hit.relevance) for hit in index.search(QUERY, 9)]
    assert [(hit.document.id, hit.relevance) for hit in index.search_by_vectors(raw, 9, texts=[QUERY])[0]] == both


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_few_documents_have_a_relevance_too(tmp_path, toy, count, mode):
    with Index.create(tmp_path / "i", toy) as index:
        index.add([Document(text) for text in ["red apples", "a green river", "a stone", "the sea", "cats"][:count]])
        best = index.search("red apples", 1, mode=mode)[0]
        assert best.document.text == "red apples"
        assert 0 < best.relevance < 1
        assert all(hit.relevance < best.relevance for hit in index.search("red apples", 9, mode=mode)[1:])


def test_equal_documents_and_an_empty_query_have_one(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index:
        index.add(["the same"] * 70)
        assert all(0 <= hit.relevance <= 1 for hit in index.search("the same", 9))
        assert all(0 <= hit.relevance <= 1 for hit in index.search("", 9))


def test_of_many_rows_a_sample_stands_for_all():
    rows = np.arange(10, 2010)
    sample = sample_of(rows)
    assert len({*sample.tolist()}) == SAMPLE
    assert (sample[0], sample[-1]) == (10, 2009)
    assert np.abs(np.diff(sample) - 2000 / SAMPLE).max() < 2
    assert sample_of(rows[:3]).tolist() == [10, 11, 12]
    assert sample_of(rows[:0]).tolist() == []
    chance = np.random.default_rng(0)
    cosines = chance.normal(0.2, 0.1, 2000)
    cosines[1234] = 0.9
    whole = QueryScale(2000, 3, rows, cosines)
    part = QueryScale(2000, 3, sample, cosines[sample - 10])
    assert part.dense_evidence(1244, 0.9) == pytest.approx(whole.dense_evidence(1244, 0.9), rel=0.1)


def test_the_sample_follows_changes(index, toy):
    before = index.search(QUERY, 1, mode="dense")[0].relevance
    index.add([f"{QUERY} {i}" for i in range(60)])
    best = index.search(QUERY, 1, mode="dense")[0]
    assert best.relevance < before, "what many are is nothing special"


def test_reranked_hits_keep_it(index, toy):
    class Backwards:
        depth = 20

        def rerank(self, query, hits, top_n=None):
            return [found[::-1][:top_n] for found in hits]

    by_id = {hit.document.id: hit.relevance for hit in index.search(QUERY, 20)}
    assert all(hit.relevance == by_id[hit.document.id] for hit in index.search(QUERY, 5, rerank=Backwards()))


@pytest.mark.parametrize("value", [-0.1, 1.1, "high", True, float("nan")])
def test_a_least_relevance_that_is_none_is_refused(index, value):
    with pytest.raises(InputError, match=r"min_relevance: .* must be from 0 to 1"):
        index.search(QUERY, min_relevance=value)
