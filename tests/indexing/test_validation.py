"""Limits of a search and of a document: each a clear error, a warning that names it, or a cure."""

import math

import numpy as np
import pytest

from tp_retrieval import Document, Embedder, Index, InputError, TruncationWarning
from tp_retrieval.indexing.storage import metadata_index as facts

CITIES = ["東京タワーは東京にある", "大阪城は大阪にある", "京都の天気", "天気がいい東京", "東京"]


def lexical(index, query, **options):
    return [(hit.document.id, hit.score) for hit in index.search(query, 10, mode="lexical", **options)]


@pytest.fixture
def trigrams(tmp_path, toy):
    with Index.create(tmp_path / "t", toy, tokenizer="trigram") as index:
        index.add([Document(text, {"n": i}, str(i)) for i, text in enumerate(CITIES)])
        yield index


def bm25_by_hand(texts, word):
    holding = [text for text in texts if word in text]
    idf = max(math.log((len(texts) - len(holding) + 0.5) / (len(holding) + 0.5)), 1e-6)
    mean = sum(map(len, texts)) / len(texts)
    scores = {}
    for i, text in enumerate(texts):
        if word in text:
            count = text.count(word)
            scores[str(i)] = idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(text) / mean))
    return scores


@pytest.mark.parametrize("word", ["大阪", "天気", "城", "東京", "無い"])
def test_a_word_of_one_or_two_letters_is_found_where_no_spaces_are(trigrams, word):
    want = bm25_by_hand(CITIES, word)
    found = dict(lexical(trigrams, word))
    assert found == pytest.approx(want)
    assert list(found) == sorted(want, key=lambda id_: (-want[id_], id_))
    hybrid = {hit.document.id: hit.parts["lexical"] for hit in trigrams.search(word, 10)}
    assert {id_: score for id_, score in hybrid.items() if score} == pytest.approx(want)


def test_short_words_obey_filters_changes_and_longer_words_beside_them(trigrams):
    assert [id_ for id_, _ in lexical(trigrams, "天気", where={"n": {"$gte": 3}})] == ["3"]
    assert [id_ for id_, _ in lexical(trigrams, "天気", ids=["2", "1"])] == ["2"]
    assert {id_ for id_, _ in lexical(trigrams, "天気 タワー")} == {"0", "2", "3"}
    assert lexical(trigrams, "天気 タワー")[0][0] in {"0", "2"}
    trigrams.delete(["2"])
    trigrams.add([Document("今日の天気", {}, "new")])
    assert {id_ for id_, _ in lexical(trigrams, "天気")} == {"3", "new"}
    assert lexical(trigrams, "a of") == [], "two letters of ASCII are in nearly every text"


def test_a_short_words_score_depends_neither_on_the_way_of_searching_nor_on_who_asks(tmp_path, toy):
    """Documents of which 30 in 100 hold the word, some behind a NUL, after changes that a fresh process has not seen."""
    texts = [
        f"{'東京' if i % 10 < 3 else '大阪'}{'の' * (i % 7)}{chr(0) if i % 5 == 0 else ''}タワーと川 {i}"
        for i in range(100)
    ]
    with Index.create(tmp_path / "i", toy, tokenizer="trigram") as index:
        index.add(["東京 to be removed", "another"])
        index.search("東京", mode="lexical")
        index.clear()
        for _ in range(3):
            index.add([Document(text, {"n": i % 4}, str(i)) for i, text in enumerate(texts)])
        for query in ("東京", "タワー", "東京 タワーと川"):
            want = {hit.document.id: hit.score for hit in index.search(query, 200, mode="lexical")}
            few = index.search(query, 200, mode="lexical", ids=["0", "10", "33", "5"])
            assert {hit.document.id: hit.score for hit in few} == {i: want[i] for i in ("0", "10", "33", "5") if i in want}
            hybrid = index.search(query, 200, candidates=5)
            assert {hit.document.id: hit.parts["lexical"] for hit in hybrid if hit.parts["lexical"]} == pytest.approx(
                {hit.document.id: want[hit.document.id] for hit in hybrid if hit.document.id in want}
            )
            with Index.open(tmp_path / "i", toy) as fresh:
                assert fresh.search(query, 200, mode="lexical") == index.search(query, 200, mode="lexical")


def test_letters_whose_capitals_are_others_match_themselves_alone(trigrams):
    trigrams.add([Document("MY PASSWORD", {}, "ss"), Document("Großß ß", {}, "sharp")])
    assert [id_ for id_, _ in lexical(trigrams, "ß")] == ["sharp"]


def test_short_words_count_as_terms(trigrams):
    with pytest.warns(TruncationWarning, match="query: 300 different terms"):
        lexical(trigrams, " ".join(chr(0x4E00 + i) for i in range(300)))


@pytest.mark.parametrize("tokenizer", ["words", "trigram"])
def test_text_behind_a_nul_is_searched(tmp_path, toy, tokenizer):
    with Index.create(tmp_path / "i", toy, tokenizer=tokenizer) as index:
        index.add([Document("river\0stone bridge\0東京", {}, "nul"), Document("green house", {}, "plain")])
        for query in ("river", "stone", "bridge", "STONE", *(["東京"] if tokenizer == "trigram" else [])):
            assert [id_ for id_, _ in lexical(index, query)] == ["nul"], query
        assert [id_ for id_, _ in lexical(index, "stone", ids=["nul"])] == ["nul"]
        assert lexical(index, "stone", ids=["plain"]) == []
        index.delete(["nul"])
        assert lexical(index, "stone") == []
        assert index.verify().ok


def test_a_query_of_many_words_names_the_limit(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index:
        index.add(["w250 something"])
        assert lexical(index, " ".join(f"w{i}" for i in range(200))) == []
        with pytest.warns(
            TruncationWarning, match="query: 300 different terms; the full text is searched for the first 200"
        ):
            lexical(index, " ".join(f"w{i}" for i in range(300)))


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_any_number_of_candidates_is_taken(tmp_path, toy, mode):
    with Index.create(tmp_path / "i", toy) as index:
        index.add(["red river", "green house", "red house"])
        want = index.search("red", 10**30, mode=mode)
        assert index.search("red", 10**30, mode=mode, candidates=10**30) == want
        assert len(want) == (2 if mode == "lexical" else 3)
        assert len(index.search("red", 3, mode=mode, candidates=10**30, mmr=0.5)) == len(want)


def test_a_filter_with_many_values_is_a_few_statements(tmp_path, toy):
    values = [*range(100_000), "seven", None, True, 2.5, math.inf, [1, 2]]
    with Index.create(tmp_path / "i", toy) as index:
        index.add(
            [Document("text", {"n": one}, str(one)) for one in (5, 99_999, 200_000, "seven", "eight", None, False, 2.5)]
        )
        statements = []
        index._store.database._connection.set_trace_callback(statements.append)
        found = {document.id for document in index.get(where={"n": {"$in": values}})}
        index._store.database._connection.set_trace_callback(None)
        assert found == {"5", "99999", "seven", "None", "2.5"}
        assert len(statements) < 250
        assert {d.id for d in index.get(where={"n": {"$nin": values}})} == {"200000", "eight", "False"}
        assert index.get(where={"n": {"$in": []}}) == []


def test_metadata_that_would_fill_the_disk_with_facts_is_refused_by_position(tmp_path, toy):
    deep = "leaf"
    for _ in range(90):
        deep = {"k" * 12_000: deep}
    flat = {f"key {i}": "v" * 50 for i in range(5000)}
    with Index.create(tmp_path / "i", toy) as index:
        with pytest.raises(InputError, match=r"documents\[1\]\.metadata: .*pass 16777216 characters; nest it less"):
            index.add(["fine", Document("text", deep)])
        assert len(index) == 0
        index.add([Document("text", flat, "flat")])
        assert [d.id for d in index.get(where={"key 4999": "v" * 50})] == ["flat"]
    assert sum(len(path) for path, _, _ in facts.facts_of(deep)) > 40_000_000


def test_metadata_nested_too_deep_for_recursion_are_refused_by_position(tmp_path, toy):
    def nested(levels):
        value = 1
        for i in range(levels):
            value = {"k": value} if i % 2 else [value]
        return {"k": value}

    with Index.create(tmp_path / "i", toy) as index:
        with pytest.raises(InputError, match=r"documents\[0\]\.metadata: nested more than 100 deep"):
            index.add([Document("text", nested(100))])
        index.add([Document("text", nested(99), "deep")])
        assert index.get(["deep"])[0].metadata == nested(99)


def test_states_that_float16_can_not_hold_are_named(tiny_folder):
    from tests import tiny

    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe=tiny.RECIPE, dtype="float16", device="cpu")
    assert np.isfinite(embedder.embed_documents(["usual"])).all()
    embedder._backbone.decoder.get_input_embeddings().weight.data.fill_(np.inf)
    with pytest.raises(InputError, match=r"NaN or infinite in float16 for 'a text.*dtype='bfloat16' or 'float32'"):
        embedder.embed_documents(["a text"])
