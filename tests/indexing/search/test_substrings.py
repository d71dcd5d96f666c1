"""Short terms and text behind a NUL against BM25 over substrings, written out in Python."""

import math

import numpy as np
import pytest

from tp_retrieval.indexing.search.substrings import Substrings

TEXTS = ["東京の東京駅", "京都と東京", "大阪の駅", "a text of letters", "Ab abÄ äb", "駅" * 9]


def bm25(texts, terms):
    mean = sum(map(len, texts)) / len(texts)
    scores = {}
    for term in terms:
        counts = {seq: text.lower().count(term.lower()) for seq, text in enumerate(texts, 1)}
        holding = sum(count > 0 for count in counts.values())
        idf = max(math.log((len(texts) - holding + 0.5) / (holding + 0.5)), 1e-6)
        for seq, count in counts.items():
            if count:
                norm = count + 1.2 * (0.25 + 0.75 * len(texts[seq - 1]) / mean)
                scores[seq] = scores.get(seq, 0.0) + idf * count * 2.2 / norm
    return scores


@pytest.fixture
def store(filled):
    return filled(TEXTS, tokenizer="trigram")


@pytest.mark.parametrize("terms", [["東京"], ["駅"], ["東京", "駅"], ["ÄB"], ["ab"], ["無"]])
def test_scores_are_bm25_over_substrings(store, terms):
    want = bm25(TEXTS, terms)
    scan = Substrings(store.database)
    assert scan.scores(terms) == pytest.approx(want, abs=1e-9)
    among = np.array([1, 3, 5])
    assert scan.scores(terms, among) == pytest.approx({s: v for s, v in want.items() if s in (1, 3, 5)}, abs=1e-9)


def test_longer_terms_are_left_to_the_trigrams(store):
    assert Substrings(store.database).scores(["letters", "東京の"]) == {}


def test_deleted_and_cleared_rows_are_followed(store):
    scan = Substrings(store.database)
    scan.scores(["駅"])
    with store.transaction():
        store.delete(store.documents.seqs_of(["d6"]))
    assert scan.scores(["駅"]) == pytest.approx(bm25(TEXTS[:5], ["駅"]), abs=1e-9)
    with store.transaction():
        store.documents.clear()
    assert scan.scores(["駅"]) == {}


def test_a_caller_may_change_the_answer(store):
    scan = Substrings(store.database)
    scan.scores(["駅"]).clear()
    assert scan.scores(["駅"]) == pytest.approx(bm25(TEXTS, ["駅"]), abs=1e-9)


def test_a_longer_term_behind_a_nul_is_scored(filled):
    store = filled(["before\0letters and letters", "nothing", "no more", "other"], tokenizer="trigram")
    scores = Substrings(store.database).scores(["letters"])
    idf = math.log(3.5 / 1.5)
    mean = (26 + 7 + 7 + 5) / 4
    assert scores == pytest.approx({1: idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 26 / mean))}, abs=1e-9)
