"""What an index does, against a dict and numpy."""

import json
import re
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import (
    Document,
    IncompatibleIndexError,
    Index,
    IndexAccessError,
    IndexExistsError,
    IndexNotFoundError,
    InputError,
    TruncationWarning,
)
from tp_retrieval.indexing.vectors import synced_vectors
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.fitting import FIT_AT
from tp_retrieval.types import PrecomputedVectors, Provenance, VectorView

DOCUMENTS = [
    Document("red apples and green pears", {"kind": "fruit", "year": 2020}, "apples"),
    Document("a green river under a stone bridge", {"kind": "place"}, "river"),
    Document("stone houses by the sea", {"kind": "place", "tags": ["a", "b"], "deep": {"x": None}}, "houses"),
    Document("the cat sleeps", {}, "cat"),
]


@pytest.fixture
def index(tmp_path, toy):
    with Index.create(tmp_path / "index", toy) as made:
        made.add(DOCUMENTS)
        yield made


def cosines(embedder, query, documents):
    raw = embedder.embed_documents([query, *(document.text for document in documents)]).astype(np.float64)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return unit[1:] @ unit[0]


def ids(hits):
    return [hit.document.id for hit in hits]


def test_dense_search_equals_brute_force(index, toy):
    query = "green stone"
    want = cosines(toy, query, DOCUMENTS)
    hits = index.search(query, 4, mode="dense")
    assert ids(hits) == [DOCUMENTS[i].id for i in np.argsort(-want, kind="stable")]
    assert [hit.score for hit in hits] == pytest.approx(sorted(want, reverse=True), abs=1e-6)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert all(hit.parts == {"dense": hit.score} for hit in hits)


def test_lexical_search_equals_bm25_computed_by_hand(index):
    """Robertson's BM25 with k1 = 1.2, b = 0.75, and FTS5's floor of 1e-6 under the idf."""
    words = {d.id: d.text.split() for d in DOCUMENTS}
    mean = np.mean([len(w) for w in words.values()])

    def bm25(query):
        scores = dict.fromkeys(words, 0.0)
        for word in query.split():
            found = sum(word in w for w in words.values())
            idf = max(np.log((len(words) - found + 0.5) / (found + 0.5)), 1e-6)
            for id_, w in words.items():
                count = w.count(word)
                scores[id_] += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(w) / mean))
        return {id_: score for id_, score in scores.items() if score > 0}

    for query in ("cat", "sea cat", "pears bridge cat"):
        hits = index.search(query, mode="lexical")
        assert {hit.document.id: hit.score for hit in hits} == pytest.approx(bm25(query))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_are_stemmed(index):
    assert ids(index.search("apple sleeping", mode="lexical")) == ["cat", "apples"]


def test_hybrid_is_the_convex_sum_of_standardised_scores(index, toy):
    query = "cat by the sea"
    dense = cosines(toy, query, DOCUMENTS)
    found = {hit.document.id: hit.score for hit in index.search(query, mode="lexical")}
    lexical = np.array([found.get(d.id, 0.0) for d in DOCUMENTS])

    def z(x):
        return (x - x.mean()) / x.std()

    for weight in (0.0, 0.3, 1.0):
        want = weight * z(dense) + (1 - weight) * z(lexical)
        hits = index.search(query, 4, dense_weight=weight)
        assert {hit.document.id: hit.score for hit in hits} == pytest.approx(
            {d.id: w for d, w in zip(DOCUMENTS, want, strict=True)}, abs=1e-5
        )
        assert ids(hits) == [DOCUMENTS[i].id for i in np.argsort(-want, kind="stable")]
        for hit in hits:
            at = [d.id for d in DOCUMENTS].index(hit.document.id)
            assert hit.parts == pytest.approx({"dense": dense[at], "lexical": lexical[at]}, abs=1e-6)


def test_hybrid_by_reciprocal_rank(index, toy):
    query = "cat by the sea"
    dense = cosines(toy, query, DOCUMENTS)
    words = ids(index.search(query, mode="lexical"))
    by_dense = [DOCUMENTS[i].id for i in np.argsort(-dense, kind="stable")]
    want = {id_: 0.4 / (61 + by_dense.index(id_)) for id_ in by_dense}
    for rank, id_ in enumerate(words, 1):
        want[id_] += 0.6 / (60 + rank)
    hits = index.search(query, 4, fusion="reciprocal-rank")
    assert {hit.document.id: hit.score for hit in hits} == pytest.approx(want)


def test_a_list_of_queries_gives_a_list_of_lists(index):
    queries = ["green stone", "cat"]
    assert index.search(queries, 2) == [index.search(query, 2) for query in queries]
    assert index.search([], 2) == []


def test_search_by_vector_equals_dense_search(index, toy):
    raw = toy.embed_queries(["green stone"])[0]
    assert index.search_by_vector(raw, 3) == index.search("green stone", 3, mode="dense")


@pytest.mark.parametrize(
    "query", ['"', "AND OR NOT", "NEAR(a b)", "text:cat", "*", "(", "", "\0", "a" * 10_000, "col : -x ^y"]
)
@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_any_query_is_text(index, query, mode):
    hits = index.search(query, 2, mode=mode)
    words = set(re.findall(r"\w+", query.lower()))
    matching = [d for d in DOCUMENTS if words & set(d.text.split())]
    assert len(hits) == (2 if mode == "hybrid" else min(len(matching), 2))
    assert not any(np.isnan(hit.score) for hit in hits)
    assert "cat" in ids(index.search(f"{query} sleeps", 4, mode="lexical"))


def test_a_decomposed_accent_is_the_same_word(index):
    index.add([Document("a r\u00e9sum\u00e9 of it all", {}, "accent")])
    for query in ("re\u0301sume\u0301", "r\u00e9sum\u00e9", "resume"):
        assert ids(index.search(query, mode="lexical")) == ["accent"]


def test_a_closed_index_says_so(index):
    index.close()
    with pytest.raises(InputError, match="closed"):
        index.search("cat")


def test_an_index_whose_making_was_cut_short_can_be_made_again(tmp_path, toy):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "index.sqlite").touch()
    with pytest.raises(IndexNotFoundError, match="make it again"):
        Index.open(tmp_path / "i", toy)
    with Index.create(tmp_path / "i", toy) as index:
        index.add(DOCUMENTS)
        assert len(index) == 4


def test_a_snapshot_that_can_not_be_written_costs_nothing(tmp_path, toy, monkeypatch, caplog):
    def full(self, file):
        raise IndexAccessError("no space left on device")

    monkeypatch.setattr(FaissIndex, "write", full)
    monkeypatch.setattr(synced_vectors, "_SNAPSHOT_AT", 1)
    with Index.create(tmp_path / "i", toy) as index:
        assert index.add(DOCUMENTS) == [d.id for d in DOCUMENTS]
        with pytest.raises(IndexAccessError, match="no space"):
            index.rebuild()
    assert "no snapshot of the vectors was written" in caplog.text
    with Index.open(tmp_path / "i", toy) as index:
        assert len(index.search("cat", 10)) == 4


def test_a_query_of_ten_thousand_words_is_searched(index):
    query = " ".join(f"w{i}" for i in range(10_000))
    with pytest.warns(TruncationWarning, match="10001 different terms"):
        assert index.search(f"cat {query}", 1, mode="lexical")[0].document.id == "cat"


def test_upsert_replaces_text_vector_and_words(index, toy):
    index.add([Document("a dog barks", {"new": True}, "cat")])
    assert len(index) == 4
    assert index.get(["cat"]) == [Document("a dog barks", {"new": True}, "cat")]
    assert ids(index.search("sleeps", mode="lexical")) == []
    assert ids(index.search("a dog barks", 1, mode="dense")) == ["cat"]
    assert index.search("a dog barks", 1, mode="dense")[0].score == pytest.approx(1.0, abs=1e-6)


def test_get_keeps_the_order_asked_for_and_skips_what_is_not_there(index):
    assert [d.id for d in index.get(["cat", "nobody", "apples"])] == ["cat", "apples"]
    assert index.get([]) == []
    assert index.get(["houses"])[0].metadata == {"kind": "place", "tags": ["a", "b"], "deep": {"x": None}}


def test_delete_counts_and_passes_over_the_unknown(index):
    assert index.delete(["cat", "nobody", "apples"]) == 2
    assert len(index) == 2
    assert set(ids(index.search("cat apples green", 10))) == {"river", "houses"}
    assert index.delete([]) == 0


def test_clear_empties_and_the_index_goes_on(index):
    assert index.clear() == 4
    assert len(index) == 0
    assert index.search("cat") == []
    index.add(DOCUMENTS[:1])
    assert ids(index.search("apples", mode="lexical")) == ["apples"]


def test_iterating_yields_documents_in_the_order_of_adding(index):
    assert list(index) == DOCUMENTS


def test_ids_are_made_for_those_without_and_plain_strings_are_documents(index):
    made = index.add(["one text", Document("another text")])
    assert len(set(made)) == 2
    assert [d.text for d in index.get(made)] == ["one text", "another text"]


@pytest.mark.parametrize("snapshot", [True, False])
def test_what_was_added_is_there_when_opened_again(tmp_path, toy, snapshot):
    index = Index.create(tmp_path / "i", toy)
    index.add(DOCUMENTS)
    index.delete(["river"])
    want = index.search("green stone", 4)
    if snapshot:
        index.close()
        assert len(list((tmp_path / "i").glob("*.faiss"))) == 1
    with Index.open(tmp_path / "i", toy) as again:
        assert again.search("green stone", 4) == want
        assert len(again) == 3
        again.add([Document("a late one", {}, "late")])
        again.delete(["apples"])
    with Index.open(tmp_path / "i", toy) as again:
        assert {d.id for d in again} == {"houses", "cat", "late"}
        assert set(ids(again.search("x", 10, mode="dense"))) == {"houses", "cat", "late"}
    index.close()


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip", "swap"])
def test_a_damaged_snapshot_is_made_again_from_the_rows(tmp_path, toy, damage):
    with Index.create(tmp_path / "i", toy) as index:
        index.add(DOCUMENTS)
        want = index.search("green stone", 4)
    (file,) = (tmp_path / "i").glob("*.faiss")
    data = file.read_bytes()
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    else:
        with Index.create(tmp_path / "other", toy) as other:
            other.add(["something else", "entirely"])
        file.write_bytes(next((tmp_path / "other").glob("*.faiss")).read_bytes())
    with Index.open(tmp_path / "i", toy) as again:
        assert again.search("green stone", 4) == want


def test_another_process_s_changes_are_seen(tmp_path, toy):
    """Two connections stand for two processes: neither sees the other's memory."""
    with Index.create(tmp_path / "i", toy) as one, Index.open(tmp_path / "i", toy) as two:
        one.add(DOCUMENTS)
        assert set(ids(two.search("cat", 10))) == {d.id for d in DOCUMENTS}
        two.delete(["cat"])
        two.add([Document("a dog", {}, "dog")])
        assert set(ids(one.search("cat", 10))) == {"apples", "river", "houses", "dog"}
        one.clear()
        assert two.search("cat") == []


def test_center_is_fitted_when_there_is_enough_and_is_the_mean_that_numpy_takes(tmp_path):
    embedder = ToyWithProvenance(postprocess="center")
    texts = [f"word{i} word{i % 7} and word{i % 3}" for i in range(FIT_AT + 20)]
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(texts[: FIT_AT - 1])
        assert index.info().fitted_on == 0
        raw = cosines(embedder, "word3", [Document(t) for t in texts[: FIT_AT - 1]])
        assert index.search("word3", 1, mode="dense")[0].score == pytest.approx(raw.max(), abs=1e-5)
        index.add(texts[FIT_AT - 1 :])
        assert index.info().fitted_on == len(texts)
        vectors = embedder.embed_documents(texts)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        query = embedder.embed_queries(["word3 word5"])[0] - mean
        want = np.sort(unit @ (query / np.linalg.norm(query)))[::-1]
        hits = index.search("word3 word5", 10, mode="dense")
        assert [hit.score for hit in hits] == pytest.approx(want[:10], abs=1e-5)
        index.add(["one more"])
        assert index.info().fitted_on == len(texts)
        index.rebuild()
        assert index.info().fitted_on == len(texts) + 1
    with Index.open(tmp_path / "i", embedder) as index:
        assert index.search("one more", 1, mode="dense")[0].score == pytest.approx(1.0, abs=1e-5)


def test_whitening_falls_back_to_centring_until_there_is_enough(tmp_path):
    embedder = ToyWithProvenance(postprocess="whiten:40")  # of 16 numbers: all of them, from 32 rows on
    texts = [f"word{i} word{i % 7} and word{i % 3}" for i in range(FIT_AT + 20)]
    with Index.create(tmp_path / "w", embedder) as index:
        index.add(texts[:40])
        assert index.info().fitted == ()
        index.add(texts[40:])
        assert index.info().fitted == ("whiten:40",)
        raw = embedder.embed_documents([*texts, "word3 word5"]).astype(np.float64)
        centred = raw - raw[:-1].mean(axis=0)
        values, directions = np.linalg.eigh(centred[:-1].T @ centred[:-1] / len(texts))
        mapped = centred @ directions / np.sqrt(values.clip(0) + 0.001 * values[-1])
        unit = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        want = np.sort(unit[:-1] @ unit[-1])[::-1][:10]
        assert [hit.score for hit in index.search("word3 word5", 10, mode="dense")] == pytest.approx(want, abs=1e-3)
    with Index.open(tmp_path / "w", embedder) as index:
        assert [hit.score for hit in index.search("word3 word5", 10, mode="dense")] == pytest.approx(want, abs=1e-3)


def test_a_map_that_needs_more_rows_is_fitted_when_they_come(tmp_path):
    embedder = ToyWithProvenance(postprocess="whiten:40")
    embedder.dimension = 40
    embedder.provenance = replace(embedder.provenance, views=(VectorView(40, "whiten:40"),))
    embedder.embed_documents = embedder.embed_queries = lambda texts: np.array(
        [np.random.default_rng(len(text) + ord(text[-1])).normal(size=40) for text in texts], dtype=np.float32
    )
    texts = [f"{'x' * i}{i}" for i in range(90)]
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(texts[:70])
        assert (index.info().fitted, index.info().fitted_on) == (("center",), 70)
        index.add(texts[70:])
        assert (index.info().fitted, index.info().fitted_on) == (("whiten:40",), 90)
        index.delete([document.id for document in index][:50])
        index.add(["another"])
        assert index.info().fitted == ("whiten:40",)


ODD = [
    "",
    "\0",
    "a\0b",
    "\u200b",
    "x" * 1_000_000,
    "\u202eright to left",
    "日本語のテキスト",
    "'; DROP TABLE documents; --",
    "\ufeffbom",
]


@pytest.mark.parametrize("tokenizer", ["words", "trigram"])
def test_any_text_comes_back_as_it_was_and_finds_itself(tmp_path, toy, tokenizer):
    """As a text, as an id and as metadata; half of a surrogate pair is refused by position."""
    documents = [Document(text, {"value": text, text: 1}, text) for text in ODD]
    with Index.create(tmp_path / "i", toy, tokenizer=tokenizer) as index:
        index.add(documents)
        assert index.get(ODD) == documents
        for document in documents:
            for mode in ("dense", "hybrid", "lexical"):
                index.search(document.text, 3, mode=mode)
            assert [hit.document for hit in index.search("x", 3, where={"value": document.text})] == [document]
            assert [hit.document for hit in index.search("x", 3, where={document.text: 1})] == [document]
        for i, bad in enumerate([Document("\ud800"), Document("x", {}, "\udfff"), Document("x", {"a": "\ud800"})]):
            with pytest.raises(InputError, match=rf"documents\[{i}\]"):
                index.add([*(Document("fine", {}, f"f{j}") for j in range(i)), bad])
        assert index.delete(ODD) == len(ODD)
        assert index.verify().ok
        assert (index.add([]), index.delete([]), index.get([]), index.search([])) == ([], 0, [], [])


def test_whitening_keeps_more_directions_as_documents_come_and_never_fewer_again(tmp_path):
    embedder = ToyWithProvenance()
    embedder.dimension = 300
    embedder.provenance = replace(embedder.provenance, views=(VectorView(300, "whiten:256"),))
    vectors = np.random.default_rng(0).normal(size=(600, 300)).astype(np.float32)
    with Index.create(tmp_path / "i", embedder) as index:
        fitted = []
        for begin in range(0, 600, 50):
            ids = [str(i) for i in range(begin, begin + 50)]
            index.add([Document(f"text {id_}", {}, id_) for id_ in ids], vectors=vectors[begin : begin + 50])
            fitted.append((index.info().fitted, index.info().fitted_on))
        assert list(dict.fromkeys(fitted)) == [
            ((), 0),
            (("center",), 100),
            (("whiten:64",), 150),
            (("whiten:128",), 300),
            (("whiten:256",), 550),
        ]
        index.delete([str(i) for i in range(400)])
        index.add(["another"], vectors=vectors[:1])
        assert index.info().fitted == ("whiten:256",)
        index.rebuild()
        assert (index.info().fitted, index.info().fitted_on) == (("whiten:64",), 201)


class ToyWithProvenance(ToyEmbedder):
    def __init__(self, postprocess="none", **changes):
        super().__init__(json.dumps(changes, sort_keys=True))
        recipe = {
            "format": 1,
            "query": "{text}",
            "document": "{text}",
            "clean": True,
            "prepend": None,
            "views": [{"exit": 2, "readout": "last", "postprocess": postprocess, "weight": 1.0}],
            "max_tokens": 512,
        }
        fields = {"model": "toy", "source": "toy", "revision": None, "weights": "abc", "dtype": "float32", "recipe": recipe}
        for key, value in changes.items():
            if key.startswith("recipe."):
                fields["recipe"] = fields["recipe"] | {key.removeprefix("recipe."): value}
            else:
                fields[key] = value
        self.provenance = Provenance(**fields, views=(VectorView(16, postprocess),))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "other"),
        ("revision", "v2"),
        ("weights", "def"),
        ("recipe.query", "q: {text}"),
        ("recipe.document", "d: {text}"),
        ("recipe.clean", False),
        ("recipe.max_tokens", 64),
        ("recipe.prepend", {"kind": "tp", "start": 1, "stop": 2}),
        ("recipe.views", [{"exit": 3, "readout": "last"}]),
    ],
)
def test_an_index_opens_only_with_what_made_it(tmp_path, field, value):
    with Index.create(tmp_path / "i", ToyWithProvenance()) as index:
        index.add(["a text"])
    with pytest.raises(IncompatibleIndexError) as error:
        Index.open(tmp_path / "i", ToyWithProvenance(**{field: value}))
    assert f"{field}: stored " in str(error.value)
    assert json.dumps(value) in str(error.value)
    with Index.open(tmp_path / "i", ToyWithProvenance()) as index:
        assert len(index) == 1


def test_another_fingerprint_or_dimension_is_named(tmp_path, toy):
    Index.create(tmp_path / "i", toy).close()
    with pytest.raises(IncompatibleIndexError, match='fingerprint: stored "toy", given "other"'):
        Index.open(tmp_path / "i", ToyEmbedder("other"))
    wide = ToyEmbedder()
    wide.dimension = 17
    with pytest.raises(IncompatibleIndexError, match="dimension: stored 16, given 17"):
        Index.open(tmp_path / "i", wide)


def test_a_newer_format_is_refused_with_both_numbers(tmp_path, toy):
    index = Index.create(tmp_path / "i", toy)
    with index._store.transaction():
        index._store.meta.set("format", 99)
    index.close()
    with pytest.raises(IncompatibleIndexError, match="format stored 99, this version reads up to 5"):
        Index.open(tmp_path / "i", toy)


def test_an_index_of_ones_own_embedder_asks_for_it_when_it_must_embed(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index:
        index.add(DOCUMENTS)
    with Index.open(tmp_path / "i") as index:
        assert ids(index.search("cat", mode="lexical")) == ["cat"]
        with pytest.raises(InputError, match="made by an embedder of your own"):
            index.search("cat")


def test_without_an_embedder_the_model_named_in_the_index_is_loaded(tmp_path, smol):
    with Index.create(tmp_path / "i", smol) as index:
        index.add(DOCUMENTS)
        want = index.search("a pet", 4)
    with Index.open(tmp_path / "i") as index:
        got = index.search("a pet", 4)
        assert ids(got) == ids(want)
        assert [hit.score for hit in got] == pytest.approx([hit.score for hit in want], abs=1e-5)


def test_places_that_hold_no_index_or_hold_one_already(tmp_path, toy):
    with pytest.raises(IndexNotFoundError, match="nothing"):
        Index.open(tmp_path / "nothing", toy)
    Index.create(tmp_path / "i", toy).close()
    with pytest.raises(IndexExistsError, match="open it"):
        Index.create(tmp_path / "i", toy)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        Index.create(tmp_path / "file" / "i", toy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dense_weight": "a"}, "dense_weight: 'a'"),
        ({"k": -1}, "k: -1"),
        ({"k": 1.5}, "k: 1.5"),
        ({"mode": "fuzzy"}, "mode: 'fuzzy'"),
        ({"dense_weight": 2}, "dense_weight: 2"),
        ({"fusion": "sum"}, "fusion: 'sum'"),
        ({"query": None}, "query"),
        ({"query": ["a", 3]}, r"query\[1\]"),
        ({"query": "\ud800"}, r"U\+D800"),
    ],
)
def test_a_wrong_argument_of_search_is_named(index, arguments, message):
    with pytest.raises(InputError, match=message):
        index.search(**{"query": "cat", **arguments})


def test_one_adder_and_three_searchers(tmp_path, toy):
    """A short turn of what the slow tests do for ten seconds."""
    failures = []
    with Index.create(tmp_path / "i", toy) as index:
        index.add(DOCUMENTS)
        done = threading.Event()

        def search():
            while not done.is_set():
                try:
                    found = ids(index.search("cat green", 3))
                    if len(found) != 3 or len(set(found)) != 3:
                        failures.append(found)
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(40):
            index.add([Document(f"green text {i}", {}, f"n{i % 9}")])
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(index) == 13


def test_open_or_create_creates_once_and_then_opens(tmp_path, toy):
    with pytest.raises(IndexNotFoundError):
        Index.open_or_create(tmp_path / "i")
    with Index.open_or_create(tmp_path / "i", toy, kind="hnsw", tokenizer="trigram") as index:
        index.add([Document("one", id="a")])
    with Index.open_or_create(tmp_path / "i", toy) as index:
        assert [document.id for document in index] == ["a"]
        assert (index.info().kind, index.info().tokenizer) == ("hnsw", "trigram")


def test_open_or_create_opens_what_another_process_created_meanwhile(tmp_path, toy, monkeypatch):
    create = Index.create

    def overtaken(path, embedder, **options):
        create(path, embedder).close()
        return create(path, embedder, **options)

    monkeypatch.setattr(Index, "create", overtaken)
    with Index.open_or_create(tmp_path / "i", toy) as index:
        assert len(index) == 0


def test_precomputed_vectors_are_searched_by_vector_and_embed_no_text(tmp_path):
    with Index.create(tmp_path / "i", PrecomputedVectors(2, "elsewhere")) as index:
        index.add([Document("east", id="e"), Document("north", id="n")], vectors=np.eye(2, dtype=np.float32))
        assert index.search_by_vector(np.array([0.1, 1.0]), 1)[0].document.id == "n"
        for fails in (lambda: index.add(["a text"]), lambda: index.search("a text")):
            with pytest.raises(InputError, match="'elsewhere' are precomputed"):
                fails()


class Drifting(ToyEmbedder):
    """An embedder whose vectors depend on the batch a little, as those of a model in bfloat16."""

    calls = 0

    def embed_documents(self, texts):
        self.calls += 1
        return super().embed_documents(texts) + np.float32(self.calls / 1000)


def test_equal_texts_of_one_add_get_equal_vectors_with_a_progress_bar_too(tmp_path):
    embedder = Drifting()
    with Index.create(tmp_path / "i", embedder) as index:
        texts = ["green stone", *(f"text {i}" for i in range(700)), "green stone"]
        index.add([Document(text, {}, str(i)) for i, text in enumerate(texts)], show_progress=True)
        assert embedder.calls == 3
        seqs = index._store.documents.seqs()
        first, last = index._store.documents.vectors_of(seqs[[0, -1]])
        assert first.tobytes() == last.tobytes()
        assert [document.text for document in index] == texts


@pytest.mark.parametrize("raw", ["float16", "float32"])
def test_rebuild_stores_raw_vectors_in_another_precision_and_gives_back_the_space(tmp_path, raw):
    class Wide(ToyEmbedder):
        dimension = 256

    rows = np.random.default_rng(0).standard_normal((600, 256)).astype(np.float32)
    before, after = ("float32", "float16") if raw == "float16" else ("float16", "float32")
    with Index.create(tmp_path / "i", Wide(), raw=before) as index:
        index.add([Document(f"text {i}", {"i": i}, str(i)) for i in range(600)], vectors=rows)
        index.delete(["3"])
        index.rebuild()
        size, hits = index.info().bytes_on_disk, index.search_by_vector(rows[7], 20)
        index.rebuild(raw=after)
        assert index.info().raw == after
        saved = size - index.info().bytes_on_disk
        assert (saved > 0.8 * 600 * 512) if raw == "float16" else (saved < -0.8 * 600 * 512)
        again = index.search_by_vector(rows[7], 20)
        assert [hit.document for hit in again] == [hit.document for hit in hits]
        assert [hit.score for hit in again] == pytest.approx([hit.score for hit in hits], abs=1e-4)
        index.add([Document("another", {}, "new")], vectors=rows[:1] + 1)
        assert index.verify().ok
    with Index.open(tmp_path / "i", Wide()) as opened:
        found = [replace(hit, relevance=None) for hit in opened.search_by_vector(rows[7], 20)]
        assert found == [replace(hit, relevance=None) for hit in again], "relevance depends on what was added"
        assert opened.search_by_vector(rows[0] + 1, 1)[0].score == pytest.approx(1, abs=1e-6)
        assert opened.verify().ok


def test_a_precision_that_there_is_not_is_refused(tmp_path, toy):
    with pytest.raises(InputError, match="raw: 'int8' must be one of float32, float16"):
        Index.create(tmp_path / "i", toy, raw="int8")
    with Index.create(tmp_path / "i", toy) as index, pytest.raises(InputError, match="raw: 'half'"):
        index.rebuild(raw="half")


def test_vectors_in_half_precision_are_searched_as_they_are_stored(tmp_path):
    """A row that was just added scores as it does after the index was opened again."""
    rows = np.random.default_rng(1).standard_normal((50, ToyEmbedder.dimension)).astype(np.float32)
    with Index.create(tmp_path / "i", ToyEmbedder(), raw="float16") as index:
        index.add([Document(f"text {i}", {}, str(i)) for i in range(50)], vectors=rows)
        hits = index.search_by_vector(rows[0], 50)
        for file in (tmp_path / "i").glob("vectors-*"):
            file.unlink()
    with Index.open(tmp_path / "i", ToyEmbedder()) as opened:
        assert opened.search_by_vector(rows[0], 50) == hits
