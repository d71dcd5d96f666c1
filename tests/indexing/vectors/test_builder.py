"""Codes that are built beside searches and changes: every thread, object and process ends with the same rows."""

import threading

import numpy as np
import pytest

from tests.toy import SampledEmbedder, documents
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.plan import Plan
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import PrecomputedVectors

DIMENSION = 16
EMBEDDER = PrecomputedVectors(DIMENSION, "drawn")


@pytest.fixture(autouse=True)
def trained_early(monkeypatch):
    monkeypatch.setattr(kinds, "TRAIN_AT", 600)


def drawn(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def numbered(begin, end):
    return [Document(f"text {i}", {}, str(i)) for i in range(begin, end)]


def nearest(index, vector, k=1):
    return [hit.document.id for hit in index.search_by_vector(vector, k)]


def test_of_two_that_build_at_once_the_later_one_takes_what_the_first_one_built(tmp_path, monkeypatch):
    rows, built, go_on = drawn(900), [], threading.Event()
    real = Plan.build
    with Index.create(tmp_path / "i", EMBEDDER) as first, Index.open(tmp_path / "i", EMBEDDER) as second:

        def build(self, held, *arguments):
            built.append("second" if held is second._builder else "first")
            result = real(self, held, *arguments)
            assert built[-1] == "first" or go_on.wait(30)
            return result

        monkeypatch.setattr(Plan, "build", build)
        first.add(numbered(0, 500), vectors=rows[:500])
        second.add(numbered(500, 700), vectors=rows[500:700])
        while built != ["second"]:
            threading.Event().wait(0.01)
        first.add(numbered(700, 900), vectors=rows[700:])
        first.wait_until_built()
        go_on.set()
        second.wait_until_built()
        assert sorted(built) == ["first", "second"]
        assert first.info().tuning == second.info().tuning is not None
        assert [nearest(second, row) for row in rows[::50]] == [[str(i)] for i in range(0, 900, 50)]


def test_what_another_process_changes_before_a_build_is_in_what_is_built(tmp_path, monkeypatch):
    rows = drawn(900)
    real, changed = SyncedVectors.due, []
    with Index.create(tmp_path / "i", EMBEDDER) as index:
        index.add(numbered(0, 500), vectors=rows[:500])

        def due(self):
            if self is index._vectors and not changed:
                changed.append(True)
                with Index.open(tmp_path / "i", EMBEDDER) as other:
                    other.add([Document("replaced", {}, "3")], vectors=rows[899:])
            return real(self)

        monkeypatch.setattr(SyncedVectors, "due", due)
        index.add(numbered(500, 700), vectors=rows[500:700])
        index.wait_until_built()
        assert index.info().tuning is not None
        assert nearest(index, rows[899]) == ["3"]
        assert nearest(index, rows[3]) != ["3"]
        assert index.verify().ok
    with Index.open(tmp_path / "i", EMBEDDER) as opened:
        assert nearest(opened, rows[899]) == ["3"]
        assert opened.verify().ok


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("FAISS"), OSError("disk"), InputError("kind")])
@pytest.mark.parametrize("place", ["due", "make_room", "build", "adopt"])
def test_what_fails_in_a_build_is_logged_and_loses_nothing(tmp_path, monkeypatch, caplog, place, error):
    def fails(*_, **__):
        raise error

    rows, owner = drawn(900), Plan if place == "build" else SyncedVectors
    with Index.create(tmp_path / "i", EMBEDDER) as index:
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, fails)
            index.add(numbered(0, 700), vectors=rows[:700])
            index.wait_until_built()
            assert str(error) in caplog.text
            assert "Traceback" not in caplog.text
            assert [nearest(index, row) for row in rows[:700:70]] == [[str(i)] for i in range(0, 700, 70)]
        index.add(numbered(700, 900), vectors=rows[700:])
        index.wait_until_built()
        assert index.info().tuning is not None
        assert index.verify().ok


def test_a_build_under_maps_that_are_changed_meanwhile_is_begun_anew(tmp_path, monkeypatch, caplog):
    rows, real = drawn(900) + 2, FaissIndex.build
    with Index.create(tmp_path / "i", EMBEDDER) as index:

        def build(cls, *arguments):
            monkeypatch.setattr(FaissIndex, "build", real)
            index.rebuild(postprocess="whiten:4")
            return real(*arguments)

        monkeypatch.setattr(FaissIndex, "build", classmethod(build))
        index.add(numbered(0, 900), vectors=rows)
        index.wait_until_built()
        assert index.info().tuning.factory == "PQ2x4fs,Refine(SQ8_direct_signed)"
        assert caplog.text == ""
        assert [nearest(index, row) for row in rows[::90]] == [[str(i)] for i in range(0, 900, 90)]


def test_opening_builds_what_a_kill_prevented(tmp_path, monkeypatch):
    rows = drawn(700)
    with monkeypatch.context() as patch, Index.create(tmp_path / "i", EMBEDDER) as index:
        patch.setattr(SyncedVectors, "due", lambda self: None)
        index.add(numbered(0, 700), vectors=rows)
        assert index.info().tuning is None
    with Index.open(tmp_path / "i", EMBEDDER) as opened:
        opened.wait_until_built()
        assert opened.info().tuning.trained_on == 700


def test_a_document_that_was_never_stored_is_never_found(tmp_path, monkeypatch):
    """Maps are fitted on rows of a transaction that is rolled back; the next documents get the same numbers."""
    with Index.create(tmp_path / "i", SampledEmbedder()) as index:
        index.add(documents(60))

        def fails(self, *_):
            raise InputError("not finite")

        with monkeypatch.context() as patch:
            patch.setattr(SyncedVectors, "prepare", fails)
            with pytest.raises(InputError, match="not finite"):
                index.add([Document(f"never stored cat {i}", {}, f"bad{i}") for i in range(70)])
        index.add([Document(f"really stored cat {i}", {}, f"good{i}") for i in range(5)])
        found = index.search("really stored cat", 5, mode="lexical")
        assert sorted(hit.document.id for hit in found) == [f"good{i}" for i in range(5)]


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
def test_the_nearest_among_many_that_are_nearly_equal_come_out(tmp_path, noise):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((8, DIMENSION)), 250, axis=0)
    rows = (rows + noise * rng.standard_normal(rows.shape)).astype(np.float32)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float64)
    with Index.create(tmp_path / "i", EMBEDDER) as index:
        index.add(numbered(0, 2000), vectors=rows)
        index.wait_until_built()
        shares = []
        for i in range(0, 2000, 97):
            scores = unit @ unit[i]
            got = [int(id_) for id_ in nearest(index, rows[i], 10)]
            shares.append(np.mean(scores[got] >= np.sort(scores)[-10] - 2e-7))
        assert np.mean(shares) >= 0.99
        assert index.info().tuning.recall >= 0.99
