"""Changes have a connection of their own: searches go on while one is committed, in the state before it."""

import os
import threading
import time

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, IndexAccessError, InputError


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document("a red stone", {"n": 1}, "old")])
        yield index


def ids(index):
    return sorted(document.id for document in index)


class Held:
    """A connection whose next commit waits until it is released, as one that a slow disk keeps waiting."""

    def __init__(self, real):
        self.real = real
        self.reached, self.released = threading.Event(), threading.Event()

    def execute(self, sql, *values):
        if sql == "COMMIT":
            self.reached.set()
            assert self.released.wait(30)
        return self.real.execute(sql, *values)

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def held(index):
    """A function that makes a change in a thread, and returns when it is about to be committed, with what releases it."""
    database = index._writer.store().database
    real = database._connection
    threads = []

    def begin(change):
        connection = database._connection = Held(real)
        threads.append(threading.Thread(target=change))
        threads[-1].start()
        assert connection.reached.wait(30)

        def finish():
            connection.released.set()
            threads[-1].join(30)
            assert not threads[-1].is_alive()

        return finish

    yield begin
    database._connection = real


CHANGES = {
    "add": (lambda index: index.add([Document("a blue stone", {"n": 2}, "new")]), ["new", "old"]),
    "replace": (lambda index: index.add([Document("a blue stone", {"n": 2}, "old")]), ["old"]),
    "update": (lambda index: index.update({"old": Document("a red stone", {"n": 3}, "other")}), ["other"]),
    "delete": (lambda index: index.delete(["old"]), []),
    "clear": (lambda index: index.clear(), []),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_search_does_not_wait_for_a_commit(index, held, name, mode):
    change, after = CHANGES[name]
    before = index.search("stone", mode=mode)
    assert [(hit.document.id, hit.document.metadata) for hit in before] == [("old", {"n": 1})]
    finish = held(lambda: change(index))
    assert index.search("stone", mode=mode) == before
    assert index.get(where={"n": {"$gte": 1}}) == [before[0].document]
    finish()
    assert sorted(hit.document.id for hit in index.search("stone", mode=mode)) == ids(index) == after


def test_two_changes_wait_for_one_another(index, held):
    finish = held(lambda: index.add([Document("one", {}, "1")]))
    second = threading.Thread(target=lambda: index.add([Document("two", {}, "2")]))
    second.start()
    time.sleep(0.05)
    assert ids(index) == ["old"]
    finish()
    second.join(30)
    assert ids(index) == ["1", "2", "old"]


def left_open(index):
    """Open a transaction that nobody closes, as an interrupt within the end of a `with` does."""
    store = index._writer.store()
    block = store.transaction()
    block.__enter__()
    store.documents.remove([1])
    return block


def test_what_an_interrupt_left_open_is_rolled_back_by_the_next_search(tmp_path, index):
    kept = left_open(index)
    assert [hit.document.id for hit in index.search("stone")] == ["old"]
    with Index.open(tmp_path / "i", ToyEmbedder()) as other:
        other.add([Document("two", {}, "2")])  # which would wait 30 s for the transaction
    assert ids(index) == ["2", "old"]
    kept.gen.close()


def test_what_another_thread_is_changing_is_not_rolled_back_by_a_search(index, held):
    finish = held(lambda: index.add([Document("one", {}, "1")]))
    for _ in range(3):
        assert len(index.search("stone")) == 1
    finish()
    assert ids(index) == ["1", "old"]


def test_closing_within_a_change_of_the_same_thread_is_refused_at_once_and_closes(tmp_path, monkeypatch):
    index = Index.create(tmp_path / "i", ToyEmbedder())
    index.add(["one"])
    with monkeypatch.context() as patch:
        patch.setattr(index, "_mapped", lambda *_: index.close())  # as a signal handler would
        with pytest.raises(InputError, match="the index is closed") as caught:
            index.add(["two"])
    refused = caught.value
    while refused.__context__ is not None and "a call within another one" not in str(refused):
        refused = refused.__context__
    assert "a call within another one of the same thread" in str(refused)
    with Index.open(tmp_path / "i", ToyEmbedder()) as again:
        assert len(again) == 1


def test_an_index_that_was_replaced_before_its_first_change_is_not_changed(tmp_path):
    Index.create(tmp_path / "i", ToyEmbedder()).close()
    with Index.open(tmp_path / "i", ToyEmbedder()) as index:
        os.rename(tmp_path / "i", tmp_path / "moved")
        Index.create(tmp_path / "i", ToyEmbedder()).close()
        with pytest.raises(IndexAccessError, match="moved, removed or replaced"):
            index.add(["one"])
    for folder in ("i", "moved"):
        with Index.open(tmp_path / folder, ToyEmbedder()) as opened:
            assert len(opened) == 0


def test_a_fork_after_a_change_leaves_both_processes_connections_of_their_own(index):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            index.add([Document("by the child", {}, "child")])
            code = 0 if ids(index) == ["child", "old"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    index.add([Document("by the parent", {}, "parent")])
    assert ids(index) == ["child", "old", "parent"]
