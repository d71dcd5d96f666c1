"""Full text against BM25 written out in Python."""

import math
import re
import warnings

import numpy as np
import pytest

from tp_retrieval import TruncationWarning
from tp_retrieval.indexing.storage import fulltext
from tp_retrieval.indexing.storage.fulltext import match_expression, terms_of

WORDS = ["lamp", "river", "dog", "cat", "stone", "moon", "tree", "bird", "boat", "road"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, int(RNG.integers(1, 14)), p=np.arange(1, 11) / 55)) for _ in range(40)]


def bm25(texts, query):
    """Score rows by FTS5's formula: k1 = 1.2, b = 0.75, and no idf below a millionth."""
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = {}
    for term in dict.fromkeys(re.findall(r"\w+", query.lower())):
        holding = sum(term in words for words in documents)
        idf = max(math.log((len(documents) - holding + 0.5) / (holding + 0.5)), 1e-6)
        for seq, words in enumerate(documents, 1):
            if count := words.count(term):
                norm = count + 1.2 * (0.25 + 0.75 * len(words) / mean)
                scores[seq] = scores.get(seq, 0.0) + idf * count * 2.2 / norm
    return scores


def best(scores, k):
    return dict(sorted(scores.items(), key=lambda pair: (-round(pair[1], 9), pair[0]))[:k])


@pytest.fixture
def store(filled):
    return filled(TEXTS)


@pytest.mark.parametrize("query", ["lamp", "river dog", "lamp, lamp? MOON!", "road tree bird boat", "nothing"])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_search_and_scores_are_bm25(store, query, k):
    want = bm25(TEXTS, query)
    found = store.fulltext.search(query, k)
    assert found == pytest.approx(best(want, k), abs=1e-9)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert store.fulltext.scores(query, range(1, 41)) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("few", [5, 500], ids=["by all matches", "by number"])
def test_among_restricts_the_rows_and_not_the_scores(store, monkeypatch, few):
    monkeypatch.setattr(fulltext, "_FEW", few)
    among = np.arange(1, 41, 3)
    want = {seq: score for seq, score in bm25(TEXTS, "river stone").items() if seq % 3 == 1}
    assert store.fulltext.search("river stone", 4, among) == pytest.approx(best(want, 4), abs=1e-9)
    assert store.fulltext.scores("river stone", among.tolist()) == pytest.approx(want, abs=1e-9)
    assert store.fulltext.search("river", 4, among[:0]) == {}


def test_k_below_one_and_queries_without_words_find_nothing(store):
    for query, k in (("lamp", 0), ("lamp", -1), ("", 5), ("?! -", 5)):
        assert store.fulltext.search(query, k) == {}


def test_a_deleted_row_leaves_search_and_statistics(store):
    with store.transaction():
        assert store.delete(store.documents.seqs_of(["d1", "d2"])) == 2
    rest = {seq + 2: score for seq, score in bm25(TEXTS[2:], "dog moon").items()}
    assert store.fulltext.search("dog moon", 100) == pytest.approx(rest, abs=1e-9)


def test_problems_names_text_that_the_table_lacks_and_remake_repairs_it(store):
    want = store.fulltext.search("boat", 100)
    assert list(store.fulltext.problems()) == []
    with store.transaction():
        store.fulltext.clear()
    assert store.fulltext.search("boat", 100) == {}
    (line,) = store.fulltext.problems()
    assert "full text does not fit the documents" in line
    with store.transaction():
        store.fulltext.rebuild()
    assert store.fulltext.search("boat", 100) == want
    assert list(store.fulltext.problems()) == []


def test_terms_are_distinct_words_or_trigrams():
    assert terms_of("A dog's dog, e\u0301te\u0301", "words") == ["A", "dog", "s", "été"]
    assert terms_of("abcd bcd ab 東京", "trigram") == ["abc", "bcd", "東京"]
    assert match_expression([]) is None
    assert match_expression(['a"b', "OR"]) == '"a""b" OR "OR"'


def test_more_than_200_terms_are_cut_with_both_numbers():
    query = " ".join(f"w{i}" for i in range(201))
    with pytest.warns(TruncationWarning, match="201 different terms; the full text is searched for the first 200"):
        assert terms_of(query, "words") == query.split()[:200]
    with warnings.catch_warnings(action="error"):
        assert len(terms_of(query, "words", warn=False)) == 200
        assert len(terms_of(query.rsplit(" ", 1)[0], "words")) == 200


def test_a_word_that_a_query_repeats_in_another_case_counts_once(store):
    assert store.fulltext.search("Lamp lamp", 100) == store.fulltext.search("lamp", 100)
