"""MMR, thresholds, trigrams, and what a search refuses."""

import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError

TEXTS = ["red apple", "red apple", "red apple tree", "green river", "a stone bridge", "the cat sleeps", "red river"]


@pytest.fixture
def index(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as made:
        made.add([Document(text, {"n": i}, str(i)) for i, text in enumerate(TEXTS)])
        yield made


def mmr_by_hand(relevance, vectors, k, weight):
    """Carbonell and Goldstein's definition, one candidate at a time."""
    chosen = []
    while len(chosen) < k:
        best = max(
            (i for i in range(len(relevance)) if i not in chosen),
            key=lambda i: (
                round(weight * relevance[i] - (1 - weight) * max((vectors[i] @ vectors[j] for j in chosen), default=0), 6),
                -i,
            ),
        )
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_mmr_is_that_of_its_definition(index, toy, mode, weight):
    plain = index.search("red apple", 10, mode=mode)
    scores = np.array([hit.score for hit in plain])
    relevance = scores if mode == "dense" else (scores - scores.min()) / (scores.max() - scores.min())
    raw = toy.embed_documents([hit.document.text for hit in plain]).astype(np.float64)
    want = mmr_by_hand(relevance, raw / np.linalg.norm(raw, axis=1, keepdims=True), 3, weight)
    hits = index.search("red apple", 3, mode=mode, mmr=weight)
    assert [hit.document.id for hit in hits] == [plain[i].document.id for i in want]
    assert [hit.score for hit in hits] == [plain[i].score for i in want]
    assert [hit.rank for hit in hits] == [1, 2, 3]


def test_mmr_chooses_what_is_unlike_the_first(index):
    assert [hit.document.text for hit in index.search("red apple", 2, mode="dense", mmr=0.3)] != ["red apple"] * 2
    assert [hit.document.text for hit in index.search("red apple", 2, mode="dense", mmr=1.0)] == ["red apple"] * 2
    assert len(index.search("red apple", 100, mmr=0.5)) == len(TEXTS)
    raw = ToyEmbedder().embed_queries(["red apple"])[0]
    assert index.search_by_vector(raw, 3, mmr=0.3) == index.search("red apple", 3, mode="dense", mmr=0.3)


@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_a_threshold_keeps_the_hits_at_or_above_it(index, mode):
    hits = index.search("red apple", 10, mode=mode)
    middle = hits[len(hits) // 2].score
    kept = index.search("red apple", 10, mode=mode, min_score=middle)
    assert kept == [hit for hit in hits if hit.score >= middle]
    assert index.search("red apple", 10, mode=mode, min_score=1e9) == []
    assert index.search("red apple", 10, mode=mode, min_score=1e9, mmr=0.5) == []


@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_ids_restrict_a_search_beside_a_filter(index, mode):
    names = ["6", "1", "nowhere", "3", "1"]
    found = index.search("red river", 10, mode=mode, ids=names)
    assert {hit.document.id for hit in found} == {"6", "1", "3"}
    assert found[0].document.id == "6"
    only = index.search("red river", 10, mode=mode, ids=names, where={"n": {"$lt": 4}})
    assert {hit.document.id for hit in only} == {"1", "3"}
    assert index.search("red river", 10, mode=mode, ids=[]) == []
    assert index.search("red river", 10, mode=mode, ids=(name for name in names)) == found


def test_ids_restrict_a_search_by_vector(index, toy):
    vector = toy.embed_queries(["red apple"])[0]
    assert [hit.document.id for hit in index.search_by_vector(vector, 5, ids=["5", "2"])] == ["2", "5"]


def test_a_vector_and_a_text_together_are_a_hybrid_search(index, toy):
    vector = toy.embed_queries(["red river"])[0]
    for options in ({}, {"dense_weight": 0.8, "where": {"n": {"$gt": 2}}}, {"fusion": "reciprocal-rank"}):
        assert index.search_by_vector(vector, 5, text="red river", **options) == index.search("red river", 5, **options)
    with pytest.raises(InputError, match="text"):
        index.search_by_vector(vector, text=b"red")


def test_documents_are_got_and_deleted_by_a_filter(index):
    assert [d.id for d in index.get()] == list("0123456")
    assert [d.id for d in index.get(where={"n": {"$gte": 4}})] == ["4", "5", "6"]
    assert [d.id for d in index.get(["6", "1", "5"], where={"n": {"$gte": 4}})] == ["6", "5"]
    assert index.get(where={"n": 99}) == []
    assert index.delete(["0", "6"], where={"n": {"$gte": 4}}) == 1
    assert index.delete(where={"n": {"$lt": 2}}) == 2
    assert [d.id for d in index.get()] == list("2345")
    assert index.delete(where={"n": 99}) == 0
    for nothing in ({}, {"where": None}, {"where": {}}):
        with pytest.raises(InputError, match="give ids or where"):
            index.delete(**nothing)
    with pytest.raises(InputError, match="unknown operator"):
        index.delete(where={"n": {"$foo": 1}})
    assert len(index) == 4


def test_a_filter_finds_what_another_opener_added_just_now(index, toy, tmp_path):
    with Index.open(tmp_path / "i", toy) as other:
        other.add([Document("blue", {"n": 50}, "new"), Document("pink", {"n": 51}, "newer")])
    assert [d.id for d in index.get(where={"n": {"$gte": 50}})] == ["new", "newer"]
    assert index.delete(where={"n": {"$gt": 50}}) == 1
    assert [d.id for d in index.get(["newer", "new"])] == ["new"]


def test_mmr_chooses_among_as_many_candidates_as_asked(index):
    assert [hit.document.id for hit in index.search("red apple", 2, mode="dense", mmr=0.0, candidates=3)] == ["0", "2"]
    assert index.search("red apple", 2, mode="dense", mmr=0.0)[1].document.id not in ("1", "2")


def test_options_work_for_lists_of_queries(index):
    queries = ["red apple", "cat"]
    options = {"where": {"n": {"$gte": 2}}, "mmr": 0.4, "mode": "hybrid"}
    assert index.search(queries, 2, **options) == [index.search(query, 2, **options) for query in queries]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mmr": 1.5}, "mmr: 1.5 must be from 0 to 1"),
        ({"mmr": "much"}, "mmr: 'much' must be"),
        ({"mmr": True}, "mmr: True must be"),
        ({"min_score": "high"}, "min_score: 'high' must be a number"),
        ({"min_score": float("nan")}, "min_score: nan must be a number"),
        ({"where": [1]}, "where: expected a dict"),
        ({"mode": "fuzzy"}, "mode: 'fuzzy' must be hybrid, dense or lexical"),
        ({"fusion": "sum"}, "fusion: 'sum' must be"),
        ({"dense_weight": 2}, "dense_weight: 2 must be"),
        ({"k": True}, "k: True must be a whole number"),
    ],
)
def test_an_argument_without_meaning_is_named(index, options, words):
    with pytest.raises(InputError, match=words):
        index.search("red", **options)


CHINESE = ["今天天气很好我们去公园散步", "数据库中的全文检索很快", "公园里的花开得很好"]


def test_trigrams_find_words_where_no_spaces_are(tmp_path, toy):
    documents = [Document(text, {}, str(i)) for i, text in enumerate(CHINESE)]
    with Index.create(tmp_path / "t", toy, tokenizer="trigram") as index, Index.create(tmp_path / "w", toy) as words:
        for one in (index, words):
            one.add(documents)
        assert [hit.document.id for hit in index.search("全文检索", mode="lexical")] == ["1"]
        assert [hit.document.id for hit in index.search("怎么用全文检索呢", mode="lexical")] == ["1"], "any three in a row"
        assert words.search("全文检索", mode="lexical") == []
        for query in ('"', "ab", "NEAR(abc, def)", "*", "abc" * 5000, "很好"):
            index.search(query, mode="lexical")
    with Index.open(tmp_path / "t", toy) as index:
        assert index.info().tokenizer == "trigram"
        assert [hit.document.id for hit in index.search("全文检索", mode="lexical")] == ["1"]
        assert index.verify().ok


@pytest.mark.parametrize("word", ["น้ำดื่ม", "किताबें", "e\u0301te\u0301", 'a"b"c', "()*:"])
def test_trigrams_are_of_what_is_there_marks_and_signs_too(tmp_path, toy, word):
    with Index.create(tmp_path / "t", toy, tokenizer="trigram") as index:
        index.add([Document(f"xx{word}yy", {}, "1"), Document("another text", {}, "2")])
        assert [hit.document.id for hit in index.search(word, mode="lexical")] == ["1"]


def test_an_unknown_tokenizer_is_named(tmp_path, toy):
    with pytest.raises(InputError, match="tokenizer: 'letters' must be one of words, trigram"):
        Index.create(tmp_path / "i", toy, tokenizer="letters")


def test_vectors_made_before_spare_the_embedding(tmp_path, toy):
    raw = toy.embed_documents(TEXTS)
    toy.embedded.clear()
    with Index.create(tmp_path / "i", toy) as index:
        index.add([Document(text, {}, str(i)) for i, text in enumerate(TEXTS)], vectors=raw)
        assert toy.embedded == []
        assert index.search("green river", 1, mode="dense")[0].document.id == "3"
        for bad in (raw[:-1], raw[:, :-1], np.full_like(raw, np.nan), raw.astype(int)):
            with pytest.raises(InputError, match="vectors"):
                index.add(TEXTS, vectors=bad)
        assert len(index) == len(TEXTS)
        assert index.add([], vectors=raw[:0]) == []


def test_another_map_without_embedding_again(tmp_path):
    """`rebuild(postprocess=...)` gives what an index made with that map gives; too few rows are refused."""
    from tp_retrieval.types import Provenance, VectorView

    class Two(ToyEmbedder):
        def __init__(self, maps):
            super().__init__()
            views = tuple(VectorView(8, map_) for map_ in maps)
            self.provenance = Provenance("toy", None, None, "w", "float32", {"views": []}, views)

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["red", "green", "sea", "sky", "cat", "stone", "river"], 5)) for _ in range(100)]
    with Index.create(tmp_path / "a", Two(["none", "none"])) as index:
        index.add(texts)
        embedded = len(index.embedder.embedded)
        for maps in (["whiten:4", "center"], "center", ["abtt:2", "none"]):
            index.rebuild(postprocess=maps)
            both = [maps, maps] if isinstance(maps, str) else maps
            with Index.create(tmp_path / "-".join(both), Two(both)) as made:
                made.add(texts)
                made.rebuild()
                want = [(hit.document.text, hit.score) for hit in made.search("red sea", 20, mode="dense")]
                assert [(h.document.text, h.score) for h in index.search("red sea", 20, mode="dense")] == want
            assert index.info().postprocess == index.info().fitted == tuple(both)
        assert len(index.embedder.embedded) == embedded + 3, "three queries, no document"
        before = index.info(), index.search("red sea", 20, mode="dense")
        with pytest.raises(InputError, match="postprocess: 3 maps for 2 views"):
            index.rebuild(postprocess=["none"] * 3)
        index.delete([hit.document.id for hit in index.search("red green sea sky cat stone river", 90)])
        count = len(index)
        with pytest.raises(InputError, match=f"'whiten:8' needs 16 documents, there are {count}"):
            index.rebuild(postprocess="whiten:8")
        assert index.info().postprocess == before[0].postprocess


def test_info_tells_how_far_the_corpus_has_grown_since_the_fit(tmp_path):
    from tp_retrieval.types import Provenance, VectorView

    class Centred(ToyEmbedder):
        provenance = Provenance("toy", None, None, "w", "float32", {"views": []}, (VectorView(16, "center"),))

    with Index.create(tmp_path / "i", Centred()) as index:
        index.add([f"text {i}" for i in range(10)])
        assert (index.info().fitted_on, index.info().growth) == (0, None)
        index.add([f"text {i}" for i in range(10, 80)])
        assert (index.info().fitted_on, index.info().growth) == (80, 1.0)
        index.add([f"text {i}" for i in range(80, 200)])
        assert (index.info().fitted_on, index.info().growth) == (80, 2.5)
        index.rebuild()
        assert (index.info().fitted_on, index.info().growth) == (200, 1.0)
