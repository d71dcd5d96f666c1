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
from pathlib import Path

import pytest

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

        def acquire(self, timeout):
            fork_waits.set()
            return lock.acquire(timeout=timeout)

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


def test_a_child_that_was_refused_a_file_goes_on_with_others_and_forks_again(database, tmp_path):
    other_owner = Owner(threading.RLock(), tmp_path / "other.sqlite")
    other = other_owner.database
    children, told = [], ""
    reader, writer = os.pipe()
    try:
        change_that_forks_into(database, children)
    except IndexAccessError as error:
        told = str(error)
    if children == [0]:
        connection = database._connection
        told += in_child(lambda: other.execute("SELECT 2")) + in_short(lambda: other.execute("SELECT 3"))
        told += in_short(lambda: connection.in_transaction) + in_short(lambda: insert(database, 5))
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answers = stream.read()
    os.waitpid(children[0], 0)
    assert answers.count("this process was forked within a call") == 2
    assert "[(2,)][(3,)]True" in answers
    other.close()


def test_another_connection_to_the_file_is_refused_too_in_the_child_of_a_fork_within_a_call(database, file):
    second_owner = Owner(threading.RLock(), file)
    second = second_owner.database
    children = []
    with contextlib.suppress(IndexAccessError):
        change_that_forks_into(database, children)
    if children == [0]:
        os._exit("this process was forked within a call" in in_short(lambda: insert(second, 5)))
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    insert(second, 6)
    assert stored(file) == [1, 6]
    second.close()


def change_that_forks_into(database, children):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        children.append(os.fork())


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


UNCLOSED = """
import gc, os, shutil, signal, sys, threading
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, rounds = sys.argv[1], int(sys.argv[2])
Index.create(folder, ToyEmbedder()).close()
done = threading.Event()

def open_and_drop():
    number = 0
    while not done.is_set():
        number += 1
        index = Index.open(folder, ToyEmbedder())
        index.add([Document(f"text {number}", {}, f"other {number % 20}")])
        del index
        if number % 3 == 0:
            gc.collect()  # as the collector does now and then: an index is in a cycle

thread = threading.Thread(target=open_and_drop)
thread.start()
told = []
for number in range(rounds):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with Index.open(folder, ToyEmbedder()) as index:
            index.add([Document(f"child {number}", {}, str(number))])
        os._exit(0)
    told.append(os.waitpid(child, 0)[1])
done.set()
thread.join()
with Index.open(folder, ToyEmbedder()) as index:
    there = {document.id for document in index}
    print(set(told), {str(i) for i in range(rounds)} <= there, index.verify().problems)
"""


def test_indexes_that_nobody_closes_are_freed_beside_forks_and_no_document_is_lost(tmp_path):
    command = [sys.executable, "-c", UNCLOSED, str(tmp_path / "i"), "60"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert (done.stdout, done.stderr) == ("{0} True ()\n", "")


CHURN = """
import os, sys, threading
from pathlib import Path
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
Index.create(folder, ToyEmbedder()).close()
done = threading.Event()

def open_and_close():
    while not done.is_set():
        with Index.open(folder, ToyEmbedder()) as index:
            len(index)

thread = threading.Thread(target=open_and_close)
thread.start()
told = []
for number in range(rounds):
    child = os.fork()
    if child == 0:
        with Index.open(folder, ToyEmbedder()) as index:
            index.add([Document(f"text {number}", {}, str(number))])
        os._exit(0)
    told.append(os.waitpid(child, 0)[1])
done.set()
thread.join()
with Index.open(folder, ToyEmbedder()) as index:
    print(set(told), sorted(int(document.id) for document in index) == list(range(rounds)), index.verify().ok)
"""


def test_children_of_forks_while_another_thread_opens_and_closes_an_index_use_it_as_any_process(tmp_path):
    command = [sys.executable, "-c", CHURN, str(tmp_path / "i"), "60"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert (done.stdout, done.stderr) == ("{0} True True\n", "")


def change_that_forks(database, children, *, where):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        if where == "between statements":
            children.append(os.fork())
        values = ((children.append(os.fork()) or 2 if where == "within a statement" and i == 3 else 2,) for i in range(5))
        database.execute_many("INSERT INTO t VALUES (?)", values)
        if where == "at the end":
            children.append(os.fork())


@pytest.mark.parametrize("where", ["between statements", "within a statement", "at the end"])
def test_a_fork_within_a_change_of_the_same_thread_leaves_it_to_the_parent(database, file, where):
    """As a signal handler may fork: the change is stored once, and nothing in the child touches the file."""
    reader, writer = os.pipe()
    children, told = [], ""
    try:
        change_that_forks(database, children, where=where)
    except IndexAccessError as error:
        told = str(error)
    if children == [0]:
        told += in_short(lambda: insert(database, 3)) + in_short(lambda: Database(file)) + in_short(database.close)
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answers = stream.read()
    os.waitpid(children[0], 0)
    assert told == ""
    assert answers.count("this process was forked within a call") == 3
    assert stored(file) == [1, 2, 2, 2, 2, 2]
    insert(database, 4)
    assert in_child(lambda: insert(database, 5)) == "None", "a fork between calls"
    assert stored(file) == [1, 2, 2, 2, 2, 2, 4, 5]


def in_short(call):
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


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
