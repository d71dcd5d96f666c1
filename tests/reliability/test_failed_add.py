"""A failed add changes nothing; only finite vectors enter; k results when k exist."""

import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, IndexAccessError, InputError

GOOD = [Document(f"good text number {i}", {"i": i}, f"id{i}") for i in range(6)]


class Faulty(ToyEmbedder):
    fault = None

    def embed_documents(self, texts):
        vectors = super().embed_documents(texts)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            return fault(vectors)
        return vectors


def spoil(value):
    def change(vectors):
        vectors[len(vectors) // 2, 3] = value
        return vectors

    return change


def fail(vectors):
    raise RuntimeError("the model broke")


BAD_DOCUMENTS = [
    Document(GOOD[0].text, {}, "twice"),
    Document(None),
    Document(b"bytes"),
    Document("a\ud800"),
    Document("x", {"when": {1, 2}}),
    Document("x", {"n": float("nan")}),
    Document("x", {1: "int key"}),
    Document("x", {"t": (1, 2)}),
    Document("x", ["no mapping"]),
    Document("x", {}, 7),
    None,
    7,
]
BAD_VECTORS = [
    spoil(np.nan),
    spoil(np.inf),
    lambda vectors: vectors[:, :-1],
    lambda vectors: vectors[:-1],
    lambda vectors: vectors.astype(object),
    fail,
]


@pytest.fixture(scope="module")
def index():
    embedder = Faulty()
    with tempfile.TemporaryDirectory() as folder, Index.create(Path(folder) / "i", embedder) as made:
        made.add([Document("kept one", {"a": 1}, "kept1"), Document("kept two good", {}, "kept2")])
        yield made


def state(index):
    found = [(hit.document, round(hit.score, 9)) for hit in index.search("kept good text", 10)]
    return list(index), found, index.info().documents


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bad=st.sampled_from(BAD_DOCUMENTS + BAD_VECTORS),
    place=st.integers(0, 6),
    count=st.integers(1, 6),
    replaces=st.booleans(),
)
def test_a_failed_add_leaves_state_and_results_as_they_were(index, bad, place, count, replaces):
    before = state(index)
    batch = list(GOOD[:count])
    if replaces:
        batch.append(Document("would replace", {}, "kept1"))
    if callable(bad):
        index.embedder.fault = bad
        message = r"vectors|model broke"
    else:
        batch.insert(min(place, len(batch)), bad)
        if isinstance(bad, Document) and bad.id == "twice":
            batch.append(bad)
        message = r"documents\[\d+\]"
    with pytest.raises((InputError, RuntimeError), match=message):
        index.add(batch)
    assert state(index) == before


def test_a_fault_at_any_statement_rolls_everything_back(tmp_path, toy):
    """The disk fails at the first, second, ... statement of an add that replaces one document and brings two more."""
    messages = []
    while True:
        with Index.create(tmp_path / f"i{len(messages)}", toy) as index:
            index.add([Document("kept one", {"a": 1}, "kept1"), Document("kept two good", {}, "kept2")])
            before = state(index)
            database = index._store.database
            database._connection = Failing(database._connection, len(messages) + 1)
            try:
                index.add([Document("replaces", {}, "kept1"), *GOOD[:2]])
            except IndexAccessError as error:
                messages.append(str(error))
            else:
                break
            finally:
                database._connection = database._connection.real
            assert state(index) == before
            index.add(GOOD[:2])
            assert len(index) == 4
    assert len(messages) >= 9
    assert all("index.sqlite: disk I/O error" in message for message in messages)


class Failing:
    def __init__(self, real, nth):
        self.real, self.left = real, nth

    def execute(self, sql, values=()):
        self._count(sql)
        return self.real.execute(sql, values)

    def executemany(self, sql, rows):
        self._count(sql)
        return self.real.executemany(sql, rows)

    def _count(self, sql):
        if not sql.startswith(("SELECT", "PRAGMA", "ROLLBACK")):
            self.left -= 1
            if self.left == 0:
                raise sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38])
def test_huge_finite_vectors_are_scaled_without_overflow(tmp_path, value):
    embedder = Faulty()
    with Index.create(tmp_path / "i", embedder) as index:
        embedder.fault = spoil(value)
        index.add([Document("huge", {}, "huge")])
        index.add([Document("usual words", {}, "usual")])
        (best, other) = index.search("usual words", 2, mode="dense")
        assert best.document.id == "usual"
        assert abs(other.score) <= 1


def test_a_vector_of_zeros_is_kept_and_scores_zero(tmp_path):
    embedder = Faulty()
    with Index.create(tmp_path / "i", embedder) as index:
        embedder.fault = np.zeros_like
        index.add([Document("nothing", {}, "nothing")])
        index.add([Document("usual words", {}, "usual")])
        hits = index.search("usual words", 2, mode="dense")
        assert [(hit.document.id, hit.score) for hit in hits] == [("usual", pytest.approx(1.0)), ("nothing", 0.0)]


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
def test_k_results_when_k_exist(tmp_path, toy, count, mode):
    with Index.create(tmp_path / "i", toy) as index:
        index.add([Document(f"text {i}", {}, str(i)) for i in range(count)])
        hits = index.search("text", 10, mode=mode)
        assert len({hit.document.id for hit in hits}) == len(hits) == min(count, 10)
        assert index.search("text", 0, mode=mode) == []


@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_equal_scores_keep_the_order_of_adding(tmp_path, toy, mode):
    """Ten identical documents, before and after reopening and after delete and add."""
    folder = tmp_path / "i"
    with Index.create(folder, toy) as index:
        index.add([Document("other words", {}, "other"), *(Document("the same words", {}, f"d{i}") for i in range(10))])

        def order(opened, k):
            return [hit.document.id for hit in opened.search("the same", k, mode=mode)]

        same = [f"d{i}" for i in range(10)]
        assert order(index, 10) == same
        assert order(index, 3) == same[:3]
    with Index.open(folder, toy) as index:
        assert order(index, 3) == same[:3]
        index.delete(["d1"])
        index.add([Document("the same words", {}, "d1")])
        assert order(index, 10) == [*same[:1], *same[2:], "d1"]
        assert order(index, 3) == ["d0", "d2", "d3"]


def test_the_order_at_the_border_holds_among_hundreds_of_ties(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index:
        index.add([Document("the same words", {}, f"d{i}") for i in range(500)])
        assert [hit.document.id for hit in index.search("same", 5, mode="dense")] == [f"d{i}" for i in range(5)]
