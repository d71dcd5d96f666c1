"""Every kind of index against brute force in numpy, with and without a filter."""

import logging
import re
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import CorruptIndexError, Document, Index, InputError
from tp_retrieval.indexing.vectors import kinds, synced_vectors
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.kinds import RECALL_AT
from tp_retrieval.indexing.vectors.plan import Plan

ROWS, DIMENSION = 3000, 32
SLOW_TO_TRAIN = pytest.param("OPQ8,IVF16,PQ8np", marks=pytest.mark.slow)
APPROXIMATE = ["scan", "hnsw", "ivf", "ivf-sq8", "ivf-pq", "PQ8np", "SQ8", SLOW_TO_TRAIN]


class Silent(ToyEmbedder):
    dimension = DIMENSION


@pytest.fixture(scope="module")
def data():
    """Clustered vectors, as texts give them: (rows, queries)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, DIMENSION))
    drawn = centres[rng.integers(0, 60, ROWS + 100)] + 0.9 * rng.standard_normal((ROWS + 100, DIMENSION))
    return drawn[:ROWS].astype(np.float32), drawn[ROWS:].astype(np.float32)


@pytest.fixture
def trained_early(monkeypatch):
    monkeypatch.setattr(kinds, "TRAIN_AT", 1000)


@pytest.fixture
def index(tmp_path, data, trained_early):
    with Index.create(tmp_path / "i", Silent(), kind="flat") as made:
        made.add(documents(0, ROWS), vectors=data[0])
        yield made


def documents(begin, end):
    return [Document(f"text {i}", {"i": i, "half": i % 2, "tenth": i % 10}, str(i)) for i in range(begin, end)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


def recall(index, data, keep, where=None, k=RECALL_AT):
    """Share of the k nearest that come out; also checks that there are k, with exact scores, in order."""
    rows, queries = unit(data[0]), unit(data[1])
    kept = np.flatnonzero(keep)
    found = []
    for query, raw in zip(queries, data[1], strict=True):
        scores = rows @ query
        truth = kept[np.argsort(-scores[kept], kind="stable")[:k]]
        hits = index.search_by_vector(raw, k, where=where)
        got = [int(hit.document.id) for hit in hits]
        assert len(set(got)) == min(k, len(kept))
        assert set(got) <= set(kept)
        assert [hit.score for hit in hits] == pytest.approx(scores[got], abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        found.append(len(set(got) & set(truth)) / len(truth))
    return float(np.mean(found))


FILTERS = [
    (None, lambda i: i >= 0),
    ({"half": 1}, lambda i: i % 2 == 1),
    ({"tenth": 3}, lambda i: i % 10 == 3),
    ({"i": {"$lt": 700}}, lambda i: i < 700),
    ({"i": {"$in": [5, 2999]}}, lambda i: (i == 5) | (i == 2999)),
]


@pytest.mark.parametrize(("where", "keep"), FILTERS)
@pytest.mark.parametrize("gathered", [0, 5000])
def test_exact_search_equals_brute_force_under_every_filter(index, data, monkeypatch, where, keep, gathered):
    """Few rows are scored one by one, many are searched with a selector; both ways give the same."""
    monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index._GATHERED", gathered)
    assert recall(index, data, keep(np.arange(ROWS)), where) == 1.0


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_kind_reaches_its_stored_recall_under_every_filter(index, data, monkeypatch, kind):
    index.rebuild(kind=kind, target_recall=0.9)
    tuning = index.info().tuning
    assert tuning.target_recall == (0.99 if kind == "scan" else 0.9)
    assert tuning.recall >= 0.9
    assert tuning.trained_on == ROWS
    if kind in ("hnsw", "ivf", "ivf-sq8", "ivf-pq"):
        assert "=" in tuning.parameters
    for where, keep in FILTERS:
        for gathered in (0, 500):
            monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index._GATHERED", gathered)
            monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index._FETCHED", gathered)
            monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index._ROUNDED", gathered)
            assert recall(index, data, keep(np.arange(ROWS)), where) >= 0.85, (where, gathered)


@pytest.mark.parametrize("kind", ["scan", "hnsw", "ivf-sq8"])
def test_more_is_asked_of_an_approximate_kind_than_it_can_reach(index, data, kind):
    """A graph that is left early, lists that are not visited: k rows come out whenever there are k."""
    index.rebuild(kind=kind, target_recall=0.5)
    for k in (1, 500, ROWS, ROWS + 10):
        assert len(index.search_by_vector(data[1][0], k)) == min(k, ROWS)


def test_the_measured_recall_is_that_of_brute_force(index, data, monkeypatch):
    """The number in `info` is compared with one computed here from the tuning's parameters."""
    index.rebuild(kind="ivf", target_recall=0.7)
    tuning = index.info().tuning
    assert abs(recall(index, data, np.ones(ROWS, bool)) - tuning.recall) < 0.1
    index.rebuild(target_recall=1.0)
    assert index.info().tuning.recall >= max(tuning.recall, 0.99)  # the first may be as high: the fastest point is timed
    assert recall(index, data, np.ones(ROWS, bool)) > 0.99


def test_recall_that_can_not_be_reached_is_told(index):
    index.rebuild(kind="PQ1x4np", target_recall=1.0)
    tuning = index.info().tuning
    assert tuning.recall < tuning.target_recall
    assert tuning.candidates == kinds._MOST_CANDIDATES


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_a_kind_lives_through_delete_add_and_reopening(tmp_path, index, data, kind):
    index.rebuild(kind=kind, target_recall=0.9)
    tuning = index.info().tuning
    gone = np.arange(0, ROWS, 7)
    index.delete([str(i) for i in gone])
    index.add(documents(0, 1), vectors=data[0][:1])  # back again
    keep = np.ones(ROWS, bool)
    keep[gone[1:]] = False
    before = recall(index, data, keep)
    assert before >= 0.85
    index.close()
    with Index.open(tmp_path / "i", Silent()) as opened:
        assert opened.info().tuning == tuning
        assert len(opened) == keep.sum()
        assert opened._vectors._faiss._inner.ntotal == ROWS + 1, "read from the snapshot, the dead with the others"
        assert recall(opened, data, keep) == before
        assert opened.verify().ok


@pytest.mark.parametrize("kind", ["flat", "scan", "hnsw"])
def test_the_dead_are_dropped_when_they_are_a_fifth(index, data, kind):
    index.rebuild(kind=kind)
    vectors = index._vectors._faiss
    index.delete([str(i) for i in range(ROWS // 5)])
    assert (len(vectors), vectors._inner.ntotal) == (ROWS - ROWS // 5, ROWS)
    index.delete([str(ROWS - 1)])
    assert (len(vectors), vectors._inner.ntotal) == (len(index), len(index))
    keep = np.arange(ROWS) >= ROWS // 5
    keep[-1] = False
    assert recall(index, data, keep) >= 0.95


def test_a_lost_snapshot_is_trained_again(tmp_path, index, data):
    index.rebuild(kind="ivf")
    tuning = index.info().tuning
    index.close()
    for file in (tmp_path / "i").glob("vectors-*"):
        file.unlink()
    with Index.open(tmp_path / "i", Silent()) as opened:
        assert opened.info().tuning.factory == tuning.factory
        assert recall(opened, data, np.ones(ROWS, bool)) >= 0.93
    assert list((tmp_path / "i").glob("vectors-*"))


def test_a_row_that_is_gone_when_its_vector_is_wanted_is_told(index):
    index.rebuild(kind="SQ8")
    with pytest.raises(CorruptIndexError, match=r"index\.sqlite: record 99999 is missing"):
        index._vectors.rows(np.array([5, 99999]))
    with pytest.raises(CorruptIndexError, match="record 99998 is missing"):
        index._vectors.rows(np.array([99998]))
    index.rebuild(kind="flat")
    with pytest.raises(CorruptIndexError, match="record 99999 has no vector"):
        index._vectors.rows(np.array([5, 99999]))


def test_another_process_follows_a_change_of_kind(tmp_path, index, data):
    with Index.open(tmp_path / "i", Silent()) as other:
        assert other.info().tuning is None
        index.rebuild(kind="ivf")
        assert other.info().tuning == index.info().tuning
        assert recall(other, data, np.ones(ROWS, bool)) >= 0.93
        index.rebuild(kind="flat")
        assert other.info().tuning is None
        assert recall(other, data, np.ones(ROWS, bool)) == 1.0


def test_a_kind_is_exact_until_there_are_rows_enough_and_trained_anew_at_four_times_as_many(tmp_path, data, trained_early):
    with Index.create(tmp_path / "i", Silent(), kind="ivf") as index:
        index.add(documents(0, 700), vectors=data[0][:700])
        assert index.info().tuning is None
        index.add(documents(700, 1100), vectors=data[0][700:1100])
        index.wait_until_built()
        assert index.info().tuning.trained_on == 1100
        index.add(documents(1100, ROWS), vectors=data[0][1100:])
        index.wait_until_built()
        assert index.info().tuning.trained_on == 1100
        assert recall(index, data, np.ones(ROWS, bool)) >= 0.9
        index.add(documents(ROWS, 2 * ROWS), vectors=data[0])
        index.wait_until_built()
        assert index.info().tuning.trained_on == 2 * ROWS
        index.clear()
        assert index.search_by_vector(data[1][0], 3) == []
        index.add(documents(0, 10), vectors=data[0][:10])
        assert len(index.search_by_vector(data[1][0], 20)) == 10
    with Index.open(tmp_path / "i", Silent()) as index:
        assert len(index.search_by_vector(data[1][0], 20)) == 10
        assert index.info().tuning is None


@pytest.mark.parametrize("kind", ["NSG32,Flat"])
def test_a_kind_that_fails_while_it_is_filled_loses_no_add(tmp_path, data, trained_early, kind, caplog):
    with Index.create(tmp_path / "i", Silent(), kind=kind) as index:
        with caplog.at_level(logging.WARNING):
            assert len(index.add(documents(0, 1100), vectors=data[0][:1100])) == 1100
            index.wait_until_built()
        assert "stays exact" in caplog.text
        caplog.clear()
        index.add(documents(1100, 1200), vectors=data[0][1100:1200])
        index.wait_until_built()
        assert caplog.text == "", "tried again only when the corpus has grown by a quarter"
        assert len(index.search_by_vector(data[1][0], 2000)) == 1200


def test_auto_scans_from_a_few_thousand_rows_on_and_looks_into_lists_where_that_is_slow(
    tmp_path, data, trained_early, monkeypatch
):
    with Index.create(tmp_path / "i", Silent()) as index:
        index.add(documents(0, 700), vectors=data[0][:700])
        index.wait_until_built()
        assert (index.info().kind, index.info().tuning) == ("auto", None)
        monkeypatch.setattr(synced_vectors, "SLOW_SECONDS", 0.0)
        index.add(documents(700, 1100), vectors=data[0][700:1100])
        index.wait_until_built()
        assert index.info().tuning.factory == "PQ16x4fs,Refine(SQ8_direct_signed)"
        index.add(documents(1100, ROWS), vectors=data[0][1100:])
        index.add(documents(ROWS, 2 * ROWS), vectors=data[0])
        index.wait_until_built()
        assert re.fullmatch(r"IVF\d+,Flat", index.info().tuning.factory)
        index.delete([str(i) for i in range(ROWS, 2 * ROWS)])
        assert recall(index, data, np.ones(ROWS, bool)) >= 0.93
        monkeypatch.setattr(synced_vectors, "SLOW_SECONDS", 1e9)
        for begin in range(ROWS, 8 * ROWS, ROWS):
            index.add(documents(begin, begin + ROWS), vectors=data[0])
        index.wait_until_built()
        assert index.info().tuning.trained_on == 8 * ROWS
        assert re.fullmatch(r"IVF\d+,Flat", index.info().tuning.factory), "fast lists are no sign of a fast scan"


def of_another_kind(count):
    """Vectors in directions that hardly occur in `data`: each near one of three axes."""
    rng = np.random.default_rng(9)
    return (10 * np.eye(DIMENSION)[rng.integers(0, 3, count)] + rng.standard_normal((count, DIMENSION))).astype(np.float32)


def found_again(index, rows, first):
    """Share of the ten nearest of points beside some rows that come out, of which the first has a number."""
    every = unit(np.concatenate([index.map_vectors(row) for row in np.array_split(rows, 4)]))
    shares = []
    for raw in rows[first : first + 100]:
        truth = np.argsort(-(every @ unit(raw[None])[0]), kind="stable")[:10]
        got = [int(hit.document.id) for hit in index.search_by_vector(raw, 10)]
        shares.append(np.isin(truth, got).mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("naive", [False, True])
def test_rows_unlike_those_that_codes_were_made_from_are_found(tmp_path, data, trained_early, monkeypatch, naive):
    """Ten nearest among 200 rows in one direction, of which the codes know nothing; the naive way misses many."""
    monkeypatch.setattr(kinds, "_OF_SCAN", kinds.Floor(0.99, 1, 1))  # with 512 candidates any way finds most of 3,200
    if naive:
        monkeypatch.setattr(FaissIndex, "_mark_unlike", lambda self: None)
    rows = np.concatenate([data[0], of_another_kind(200)])
    with Index.create(tmp_path / "i", Silent(), kind="scan") as index:
        index.add(documents(0, ROWS), vectors=data[0])
        index.wait_until_built()
        before = index.info().tuning
        index.add(documents(ROWS, len(rows)), vectors=rows[ROWS:])
        index.wait_until_built()
        assert index.info().tuning == before, "too few to make codes anew"
        share = found_again(index, rows, ROWS)
        index.close()
        with Index.open(tmp_path / "i", Silent()) as opened:
            assert found_again(opened, rows, ROWS) == share
    assert share < 0.9 if naive else share == 1.0


def test_codes_are_made_anew_when_many_rows_are_unlike_those_they_were_made_from(tmp_path, data, trained_early):
    rows = np.concatenate([data[0], of_another_kind(600)])
    with Index.create(tmp_path / "i", Silent(), kind="scan") as index:
        index.add(documents(0, ROWS), vectors=data[0])
        index.wait_until_built()
        index.add(documents(ROWS, len(rows)), vectors=rows[ROWS:])
        index.wait_until_built()
        assert index.info().tuning.trained_on == len(rows)
        assert not index._vectors._faiss.drifted
        assert found_again(index, rows, ROWS) >= 0.99
        assert found_again(index, rows, 0) >= 0.99


def test_searches_and_changes_go_on_while_codes_are_made(tmp_path, data, trained_early, monkeypatch):
    """A build that stands still holds nobody up, and what changed meanwhile is there when it ends."""
    begun, go_on = threading.Event(), threading.Event()
    real = Plan.build

    def slow(self, *arguments):
        built = real(self, *arguments)
        begun.set()
        assert go_on.wait(30)
        return built

    monkeypatch.setattr(Plan, "build", slow)
    with Index.create(tmp_path / "i", Silent()) as index:
        index.add(documents(0, 1500), vectors=data[0][:1500])
        assert begun.wait(30)
        assert index.info().tuning is None
        index.delete([str(i) for i in range(0, 1500, 3)])
        index.add(documents(1500, ROWS), vectors=data[0][1500:])
        kept = (np.arange(ROWS) >= 1500) | (np.arange(ROWS) % 3 != 0)
        assert recall(index, data, kept) == 1.0
        go_on.set()
        index.wait_until_built()
        assert index.info().tuning.trained_on == 1500
        assert recall(index, data, kept) >= 0.99
        assert index.verify().ok


def test_an_index_that_is_closed_while_codes_are_made_has_them_when_it_opens(tmp_path, data, trained_early):
    with Index.create(tmp_path / "i", Silent()) as index:
        index.add(documents(0, ROWS), vectors=data[0])
    with Index.open(tmp_path / "i", Silent()) as opened:
        assert opened.info().tuning.trained_on == ROWS
        assert recall(opened, data, np.ones(ROWS, bool)) >= 0.99


def test_equal_rows_come_in_the_order_of_adding_from_a_scan_too(tmp_path, data, trained_early):
    rows = np.repeat(data[0][:30], 100, axis=0)
    with Index.create(tmp_path / "i", Silent(), kind="scan") as index:
        index.add(documents(0, ROWS), vectors=rows)
        index.wait_until_built()
        for place in (0, 7, 29):
            hits = index.search_by_vector(rows[100 * place], 20)
            assert [int(hit.document.id) for hit in hits] == list(range(100 * place, 100 * place + 20))


@pytest.mark.parametrize("dimension", [1, 2, 7, 33])
def test_a_scan_takes_any_dimension(tmp_path, dimension, trained_early):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((1200, dimension)).astype(np.float32)

    class OfDimension(ToyEmbedder):
        pass

    OfDimension.dimension = dimension
    with Index.create(tmp_path / "i", OfDimension(), kind="scan") as index:
        index.add(documents(0, 1200), vectors=rows)
        index.wait_until_built()
        assert index.info().tuning.factory.endswith("x4fs,Refine(SQ8_direct_signed)")
        scores = unit(rows) @ unit(rows[:1])[0]
        hits = index.search_by_vector(rows[0], 10)
        assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:10], abs=1e-5)


def test_a_scan_promises_a_recall_of_99_percent_and_keeps_it_after_changes(tmp_path, data, trained_early):
    with Index.create(tmp_path / "i", Silent(), kind="scan", target_recall=0.5) as index:
        index.add(documents(0, 2000), vectors=data[0][:2000])
        index.wait_until_built()
        assert index.info().tuning.target_recall == 0.99
        assert index.info().tuning.recall >= 0.99
        index.add(documents(2000, ROWS), vectors=data[0][2000:])  # encoded at once, by the codes there are
        index.delete([str(i) for i in range(0, ROWS, 7)])
        kept = np.arange(ROWS) % 7 != 0
        assert recall(index, data, kept) >= 0.99
        assert recall(index, data, kept & (np.arange(ROWS) % 10 == 3), {"tenth": 3}) >= 0.99


def test_the_rows_of_a_filter_are_kept_until_a_change_and_types_are_told_apart(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index, Index.open(tmp_path / "i", toy) as other:
        index.add(
            [Document("one", {"n": 1}, "int"), Document("two", {"n": True}, "bool"), Document("three", {"n": 2}, "late")]
        )

        def found(opened, where):
            return {hit.document.id for hit in opened.search("one", 5, where=where)}

        for _ in range(2):
            assert found(index, {"n": 1}) == {"int"}
            assert found(index, {"n": True}) == {"bool"}
        index.add([Document("three", {"n": 1}, "late")])
        assert found(index, {"n": 1}) == {"int", "late"} == found(other, {"n": 1})
        other.delete(["int"])
        assert found(index, {"n": 1}) == {"late"} == found(other, {"n": 1})
        for n in range(20):
            assert found(index, {"n": {"$gt": n}}) == ({"late", "bool"} - {"bool"} if n < 1 else set())


@pytest.mark.parametrize("kind", ["", "nonsense", "IVF", "PQ7", "ivf-pq9", "IDMap,Flat", "IDMap2,Flat", None, 3])
def test_an_unknown_kind_is_named_with_what_there_is(tmp_path, index, kind):
    with pytest.raises(
        InputError, match=r"kind: .*auto, flat, scan, hnsw, ivf, ivf-sq8, ivf-pq, or a FAISS factory string"
    ):
        Index.create(tmp_path / "other", Silent(), kind=kind)
    assert not (tmp_path / "other").exists()
    if kind is not None:
        with pytest.raises(InputError, match="kind: "):
            index.rebuild(kind=kind)


def test_a_kind_that_can_not_be_built_leaves_the_index_exact(index, data, caplog):
    with caplog.at_level(logging.WARNING):
        index.rebuild(kind="IVF2900,Flat")
    assert "stays exact" in caplog.text
    assert index.info().tuning is None
    assert recall(index, data, np.ones(ROWS, bool)) == 1.0


def test_an_interrupted_build_loses_nothing(index, data, monkeypatch):
    want = index.search_by_vector(data[1][0], 10)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tp_retrieval.indexing.vectors.faiss_index.tuned", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.rebuild(kind="ivf")
    assert index.search_by_vector(data[1][0], 10) == want
    index.add([replace(document, id="new") for document in documents(0, 1)], vectors=data[1][:1])
    assert index.search_by_vector(data[1][0], 1)[0].document.id == "new"


@pytest.mark.parametrize(("work", "at"), [("add", 1), *((work, at) for work in ("rebuild", "search") for at in (1, 2, 3))])
def test_an_interrupted_replay_is_not_taken_for_a_whole_one(tmp_path, index, data, monkeypatch, work, at):
    """Ctrl-C before or between batches of rows: the next search starts over."""
    real, calls = FaissIndex.add, []

    def interrupted(self, seqs, vectors):
        calls.append(len(seqs))
        if len(calls) == at:
            raise KeyboardInterrupt
        real(self, seqs, vectors)

    works = {
        "rebuild": index.rebuild,
        "add": lambda: index.add(documents(ROWS, 2 * ROWS), vectors=data[0]),
        "search": lambda: (index._vectors.discard(), index.search_by_vector(data[1][0], 1)),
    }
    with monkeypatch.context() as patch:
        patch.setattr(FaissIndex, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            works[work]()
    there = ROWS * (2 if work == "add" else 1)  # an add is durable before its vectors are taken in
    assert len(index.search_by_vector(data[1][0], 10_000)) == len(index) == there
    index.close()
    with Index.open(tmp_path / "i", Silent()) as opened:
        assert opened.verify().ok


@pytest.mark.parametrize("target", [0, -1, 1.1, "high", None])
def test_a_recall_without_meaning_is_refused(tmp_path, index, target):
    with pytest.raises(InputError, match="target_recall"):
        Index.create(tmp_path / "other", Silent(), target_recall=target)
    if target is not None:
        with pytest.raises(InputError, match="target_recall"):
            index.rebuild(target_recall=target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scan", "hnsw", "ivf", "ivf-sq8", "ivf-pq"])
def test_the_stored_recall_is_a_lower_bound_for_queries_that_are_no_rows(tmp_path, kind):
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((200, 64))

    def draw(count):
        vectors = centres[rng.integers(0, 200, count)] + 0.7 * rng.standard_normal((count, 64))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    class Wide(Silent):
        dimension = 64

    rows, queries = draw(12_000), draw(400)
    truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    with Index.create(tmp_path / "i", Wide(), kind=kind) as index:
        index.add([Document("text", {}, str(i)) for i in range(len(rows))], vectors=rows)
        index.wait_until_built()
        found = [{int(hit.document.id) for hit in index.search_by_vector(query, 10)} for query in queries]
        recall = np.mean([len(got & set(want.tolist())) / 10 for got, want in zip(found, truth, strict=True)])
        assert recall >= index.info().tuning.recall >= 0.95


def test_queries_that_were_asked_are_tuned_to(tmp_path, data, trained_early, monkeypatch):
    seen = []

    def noting(inner, queries, *others, **options):
        seen.append(queries)
        return kinds.tuned(inner, queries, *others, **options)

    monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index.tuned", noting)
    with Index.create(tmp_path / "i", Silent(), kind="ivf") as index:
        index.add(documents(0, 100), vectors=data[0][:100])
        for query in data[1][:5]:
            index.search_by_vector(query, 3)
        index.add(documents(100, 1500), vectors=data[0][100:1500])
        index.wait_until_built()
        assert np.allclose(seen[0][-5:], unit(data[1][:5]), atol=1e-6)
        assert len(seen[0]) == kinds.HELD_OUT + 5


@pytest.mark.parametrize("kind", ["flat", "scan", "ivf"])
@pytest.mark.parametrize("where", [None, {"half": 1}, {"i": {"$lt": 5}}])
def test_many_queries_at_once_get_what_each_gets_alone(index, data, kind, where, monkeypatch):
    monkeypatch.setattr("tp_retrieval.indexing.vectors.faiss_index._TOGETHER", 7)
    index.rebuild(kind=kind)
    queries = [f"query {i}" for i in range(20)]
    monkeypatch.setattr(Silent, "embed_queries", lambda self, texts: data[1][[int(text.split()[1]) for text in texts]])
    for mode in ("dense", "hybrid"):
        together = index.search(queries, 5, mode=mode, where=where)
        assert together == [index.search(query, 5, mode=mode, where=where) for query in queries]
        assert [len(hits) for hits in together] == [5] * 20
        texts = None if mode == "dense" else queries
        assert index.search_by_vectors(data[1][:20], 5, texts=texts, where=where) == together
    with pytest.raises(InputError, match="texts: 20 texts for 3 vectors"):
        index.search_by_vectors(data[1][:3], texts=queries)
    for wrong in (data[1][0], np.float32(1), data[1][:2, :5]):
        with pytest.raises(InputError, match="vectors: shape"):
            index.search_by_vectors(wrong)
    assert index.search_by_vectors(data[1][:0]) == []
