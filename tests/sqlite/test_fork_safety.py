"""A fork while databases are open: connections, locks and descriptors on both sides."""

import contextlib
import os
import sqlite3
import threading
import weakref

import pytest

from tp_retrieval.errors import IndexAccessError
from tp_retrieval.sqlite import fork_safety, shared_file
from tp_retrieval.sqlite.database import Database


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture
def lock():
    return threading.RLock()


@pytest.fixture
def database(file, lock):
    database = Database(file)
    database.enable_log()
    with database.transaction():
        database.execute("CREATE TABLE t(x)")
    fork_safety.guard(lock, database)
    yield database
    database.close()


def in_child(work):
    """Return what a forked child returns, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                result = str(work())
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        result = stream.read()
    os.waitpid(child, 0)
    return result


def insert(database, value):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (?)", (value,))


def stored(file):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY rowid")]


def test_parent_and_child_write_through_connections_of_their_own(database, file):
    insert(database, 1)
    connection = database._connection
    assert in_child(lambda: (insert(database, 2), database._connections)[1]) == "2"
    insert(database, 3)
    assert stored(file) == [1, 2, 3]
    assert database._connection is not connection, "a connection must not cross a fork"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_the_connection_is_closed_in_the_parent_before_the_child_exists(database, monkeypatch):
    order = []
    suspend, resume = Database.suspend, Database.resume
    monkeypatch.setattr(Database, "suspend", lambda self: (self is database and order.append("suspend"), suspend(self)))
    monkeypatch.setattr(Database, "resume", lambda self: (self is database and order.append("resume"), resume(self)))
    assert in_child(lambda: order) == "['suspend', 'resume']"
    assert order == ["suspend", "resume"]


def test_a_fork_waits_for_a_change_of_another_thread_and_the_child_sees_it_whole(database, lock):
    holding, fork_waits = threading.Event(), threading.Event()

    class Waiting:
        """The lock of the database, which says when a fork begins to wait for it."""

        def acquire(self):
            fork_waits.set()
            lock.acquire()

        def release(self):
            lock.release()

    fork_safety.guard(Waiting(), database)

    def change():
        with lock, database.transaction():
            database.execute("INSERT INTO t VALUES (1)")
            holding.set()
            fork_waits.wait(10)
            database.execute("INSERT INTO t VALUES (2)")

    thread = threading.Thread(target=change)
    thread.start()
    holding.wait(10)
    assert in_child(lambda: database.execute("SELECT x FROM t")) == "[(1,), (2,)]"
    thread.join()


def test_every_lock_is_free_after_a_fork_on_both_sides(database, lock):
    def free():
        answers = []

        def attempt():
            for one_lock in (lock, shared_file.lock, fork_safety._one_fork):
                answers.append(one_lock.acquire(blocking=False))
                one_lock.release()

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return answers

    assert in_child(free) == "[True, True, True]"
    assert free() == [True, True, True]
    assert fork_safety._held == []


def test_a_closed_database_stays_closed(database):
    database.close()
    assert in_child(lambda: database.execute("SELECT 1")).startswith("InputError")
    assert database.closed
    assert database._connections == 1


def test_a_file_that_was_replaced_before_the_fork_is_not_opened(database, file):
    insert(database, 1)
    file.rename(file.with_name("moved"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t(x)")
    assert "was moved, removed or replaced" in in_child(lambda: insert(database, 2))
    with pytest.raises(IndexAccessError, match="was moved, removed or replaced"):
        insert(database, 3)
    assert stored(file) == []


def test_a_database_that_nobody_holds_any_more_is_forgotten(tmp_path, lock):
    short = Database(tmp_path / "short.sqlite")
    fork_safety.guard(lock, short)
    assert short in fork_safety._guarded
    short.close()
    alive = weakref.ref(short)
    del short
    assert alive() is None
