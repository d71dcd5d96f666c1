"""A fork while databases are open: connections, locks and descriptors on both sides."""

import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from tests.reliability.interrupter import Count, at_call, is_free, keyboard_interrupt
from tp_retrieval.errors import IndexAccessError
from tp_retrieval.sqlite import fork_safety, shared_file
from tp_retrieval.sqlite.database import Database

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture
def lock():
    return threading.RLock()


class Owner:
    """What holds a database, and can be referred to weakly."""

    def __init__(self, lock, file):
        self.database = fork_safety.guarded(self, lock, file)


@pytest.fixture
def owner(file, lock):
    return Owner(lock, file)


@pytest.fixture
def database(owner):
    database = owner.database
    database.enable_log()
    with database.transaction():
        database.execute("CREATE TABLE t(x)")
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

        def acquire(self, blocking=True, timeout=-1):
            fork_waits.set()
            return lock.acquire(blocking, timeout)

        def release(self):
            lock.release()

    fork_safety._guarded[database] = Waiting()

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


def test_a_thread_that_opens_another_database_under_its_lock_and_a_fork_do_not_wait_for_each_other(
    database, lock, tmp_path
):
    """As `Index.verify` does, which opens the file once more."""
    holding, opened = threading.Event(), []

    def open_another():
        with lock:
            holding.set()
            time.sleep(0.1)  # until the fork waits for the lock
            opened.append(Owner(threading.RLock(), tmp_path / "other.sqlite"))

    thread = threading.Thread(target=open_another)
    thread.start()
    holding.wait(10)
    assert in_child(lambda: opened[0].database.execute("SELECT 1")) == "[(1,)]"
    thread.join()
    opened[0].database.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_of_a_signal_handler_while_a_fork_waits_leaves_no_lock_acquired(database, lock, file):
    """Python does not let it stop the fork."""
    holding, seen = threading.Event(), []

    def change():
        with lock:
            holding.set()
            time.sleep(0.6)

    def handler(*_):
        seen.append(database._suspended)
        raise TimeoutError

    thread = threading.Thread(target=change)
    thread.start()
    holding.wait(10)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert in_child(lambda: insert(database, 1)) == "None"
    finally:
        signal.signal(signal.SIGALRM, before)
    thread.join()
    assert seen == [False]
    free = []

    def attempt():
        with lock:
            free.append(True)

    other = threading.Thread(target=attempt, daemon=True)
    other.start()
    other.join(5)
    assert free == [True]
    assert stored(file) == [1]


def test_a_fork_within_a_fork_leaves_every_connection_closed_for_the_outer_one(database, file, monkeypatch):
    """As a signal handler may fork while a fork closes connections."""
    suspend, inner, crossed = Database.suspend, [], []

    def suspending(self):
        suspend(self)
        if self is database and not inner:
            inner.append(None)
            inner[0] = in_child(lambda: 1)
            crossed.append(not self._suspended)

    monkeypatch.setattr(Database, "suspend", suspending)
    assert in_child(lambda: insert(database, 1)) == "None"
    assert (inner, crossed) == (["1"], [False])
    insert(database, 2)
    assert stored(file) == [1, 2]
    assert fork_safety._forks == []


def test_a_call_of_a_signal_handler_while_the_process_is_forked_is_told_so(database, monkeypatch):
    suspend, told = Database.suspend, []

    def suspending(self):
        suspend(self)
        if self is database:
            told.append(in_short(lambda: insert(database, 1)))

    monkeypatch.setattr(Database, "suspend", suspending)
    in_child(lambda: 1)
    assert told[0].endswith("this process is being forked; call again")


CHURN = """
import gc, os, signal, sys, threading
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, way, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
Index.create(folder, ToyEmbedder()).close()
done = threading.Event()

def open_and_leave():
    number = 0
    while not done.is_set():
        number += 1
        index = Index.open(folder, ToyEmbedder())
        index.add([Document(f"text {number}", {}, f"other {number % 20}")])
        if way == "closed":
            index.close()
        del index
        if number % 3 == 0:
            gc.collect()  # as the collector does now and then: an index is in a cycle

thread = threading.Thread(target=open_and_leave)
thread.start()
told = set()
for number in range(rounds):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with Index.open(folder, ToyEmbedder()) as index:
            index.add([Document(f"child {number}", {}, str(number))])
        os._exit(0)
    told.add(os.waitpid(child, 0)[1])
done.set()
thread.join()
with Index.open(folder, ToyEmbedder()) as index:
    print(told, {str(i) for i in range(rounds)} <= {document.id for document in index}, index.verify().problems)
"""


@pytest.mark.parametrize("way", ["closed", "left to the collector"])
def test_forks_while_another_thread_opens_and_leaves_an_index_lose_no_document(tmp_path, way):
    command = [sys.executable, "-c", CHURN, str(tmp_path / "i"), way, "60"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert (done.stdout, done.stderr) == ("{0} True ()\n", "")


def change_that_forks(database, children, *, where):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        if where == "between statements":
            children.append(os.fork())
        values = ((children.append(os.fork()) or 2 if where == "within a statement" and i == 3 else 2,) for i in range(5))
        database.execute_many("INSERT INTO t VALUES (?)", values)
        if where == "at the end":
            children.append(os.fork())


def told_after_a_fork_within(database, where, *calls):
    """Fork within a change, finish it in the parent, and return what the child was told by it and by further calls."""
    reader, writer = os.pipe()
    children = []
    told = in_short(lambda: change_that_forks(database, children, where=where))
    if children == [0]:
        os.write(writer, "\n".join([told, *map(in_short, calls)]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answers = stream.read().split("\n")
    os.waitpid(children[0], 0)
    assert told == "None"
    return answers


REFUSED = "this process was forked within a call"


@pytest.mark.parametrize("where", ["between statements", "within a statement", "at the end"])
def test_a_fork_within_a_change_of_the_same_thread_leaves_it_to_the_parent(database, file, where):
    """As a signal handler may fork: the change is stored once, and nothing in the child touches the file."""
    *refused, closed = told_after_a_fork_within(
        database, where, lambda: insert(database, 3), lambda: Database(file), database.close
    )
    assert [REFUSED in answer for answer in refused] == [True] * 3
    assert closed == "None"
    assert stored(file) == [1, 2, 2, 2, 2, 2]
    insert(database, 4)
    assert in_child(lambda: insert(database, 5)) == "None", "a fork between calls"
    assert stored(file) == [1, 2, 2, 2, 2, 2, 4, 5]


def test_a_child_that_was_refused_a_file_goes_on_with_others_and_forks_again(database, file, tmp_path):
    other, second = Owner(threading.RLock(), tmp_path / "other.sqlite"), Owner(threading.RLock(), file)
    connection = database._connection
    answers = told_after_a_fork_within(
        database,
        "at the end",
        lambda: insert(second.database, 3),  # which would take the parent's locks for its own
        lambda: in_child(lambda: other.database.execute("SELECT 1")),
        lambda: other.database.execute("SELECT 2"),
        lambda: connection.in_transaction,
        lambda: insert(database, 3),
    )
    assert [REFUSED in answer for answer in answers] == [True, True, False, False, False, True]
    assert answers[2:5] == ["[(1,)]", "[(2,)]", "True"], "the connection is not closed, which would write"
    insert(second.database, 6)
    assert stored(file) == [1, 2, 2, 2, 2, 2, 6]
    for owner in (other, second):
        owner.database.close()


def in_short(call):
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_every_lock_is_free_after_a_fork_on_both_sides(database, lock):
    def free():
        return [is_free(one) for one in (lock, shared_file.lock, fork_safety._one_fork)]

    assert in_child(free) == "[True, True, True]"
    assert free() == [True, True, True]
    assert fork_safety._forks == []


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


def test_a_database_whose_owner_is_gone_is_closed_and_forgotten(tmp_path, lock):
    before = len(os.listdir("/proc/self/fd"))
    owner = Owner(lock, tmp_path / "short.sqlite")
    database = owner.database
    assert database in fork_safety._guarded
    del owner
    gc.collect()
    assert database not in fork_safety._guarded
    assert database.closed
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("busy", ["a fork", "descriptors", "its lock"])
def test_an_owner_that_is_freed_while_another_thread_holds_a_lock_waits_for_nobody(tmp_path, lock, busy):
    """The collector may run in a thread that holds what the other one waits for."""
    owner = Owner(lock, tmp_path / "short.sqlite")
    database, held, freed = owner.database, threading.Event(), threading.Event()

    def hold():
        with {"a fork": fork_safety._one_fork, "descriptors": shared_file.lock, "its lock": lock}[busy]:
            held.set()
            freed.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    before = time.monotonic()
    del owner
    gc.collect()
    assert time.monotonic() - before < 5, "it waited until the other thread gave up"
    assert not database.closed
    assert database in fork_safety._guarded, "a fork closes its connection until then"
    freed.set()
    thread.join()
    another = Owner(threading.RLock(), tmp_path / "next.sqlite")
    assert database.closed
    assert database not in fork_safety._guarded
    another.database.close()


def test_an_owner_that_is_freed_while_another_thread_forks_is_closed_afterwards(tmp_path, lock):
    owner = Owner(lock, tmp_path / "short.sqlite")
    database, owners = owner.database, [owner]
    del owner
    fork_safety._before()
    thread = threading.Thread(target=owners.clear)
    thread.start()
    thread.join()
    assert not database.closed
    fork_safety._after(in_child=False)
    assert database.closed
    assert database not in fork_safety._guarded


def test_a_signal_handler_that_raises_while_an_owner_is_freed_leaves_all_to_the_next(tmp_path):
    """Every lock is free: another thread would wait for ever, as one does that compares an index's checksum."""
    for nth in count(1):
        owner = Owner(threading.RLock(), tmp_path / f"{nth}.sqlite")
        database, interrupt = owner.database, Count(nth, keyboard_interrupt)
        lock = fork_safety._guarded[database]
        with contextlib.suppress(KeyboardInterrupt), at_call(interrupt):
            fork_safety._dispose(database)
        assert [is_free(one) for one in (lock, shared_file.lock, fork_safety._one_fork)] == [True] * 3, nth
        another = Owner(threading.RLock(), tmp_path / "another.sqlite")
        assert database.closed, nth
        assert database not in (*fork_safety._guarded, *fork_safety._orphans), nth
        another.database.close()
        if interrupt.left > 0:
            break
    assert nth > 8


@pytest.mark.parametrize("moment", ["get", "fstat"])
def test_a_database_opens_while_the_last_other_one_of_its_file_is_freed(tmp_path, monkeypatch, moment):
    """By the garbage collector, or in a signal handler, at any moment of it."""
    file = tmp_path / "index.sqlite"
    owners = [Owner(threading.RLock(), file)]
    status = os.fstat

    class Open(dict):
        def get(self, inode):
            return (super().get(inode), owners.clear())[0]

    if moment == "get":
        monkeypatch.setattr(shared_file, "_open", Open(shared_file._open))
    else:
        monkeypatch.setattr(os, "fstat", lambda number: (owners.clear(), status(number))[1])
    another = Owner(threading.RLock(), file)
    assert not owners
    assert another.database.execute("SELECT 1") == [(1,)]
    another.database.close()


def test_a_file_that_is_replaced_by_an_open_one_while_it_is_opened_shares_that_ones_descriptor(tmp_path, monkeypatch):
    """To close another descriptor of a file would drop SQLite's locks on it."""
    file, other, opened = tmp_path / "index.sqlite", tmp_path / "other.sqlite", shared_file._opened
    before = len(os.listdir("/proc/self/fd"))
    file.touch()
    first = shared_file.SharedFile(other)
    monkeypatch.setattr(shared_file, "_opened", lambda path: (other.rename(path), opened(path))[1])
    second = shared_file.SharedFile(file)
    assert first.state() == second.state()
    first.release()
    assert second.is_at(file)
    assert list(second.blocks()) == []
    assert len(os.listdir("/proc/self/fd")) == before + 2, "none is closed while one is used"
    second.release()
    assert len(os.listdir("/proc/self/fd")) == before
