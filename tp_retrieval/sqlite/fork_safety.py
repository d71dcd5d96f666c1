"""Databases across a fork.

SQLite's connections must not cross a fork: a child would take the parent's file locks for its own, which they are not. And
a child must not get an index that another thread has half changed. So before a fork every owner's lock is acquired and its
database closed; afterwards both processes open it again.

A signal handler may raise, or fork, at any moment of this but while a database opens, and the garbage collector may free an
owner.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.shared_file import lock as descriptors

_guarded: dict[Database, Any] = {}
"""The lock of every database whose owner is alive. Not weak, since a connection that is being freed is open, too."""

_one_fork = threading.RLock()
_Held = list[tuple[Database | None, Any]]
_forks: list[_Held] = []
"""What each fork that is under way holds: databases and locks. A signal handler may fork within a fork."""

_orphans: list[Database] = []
"""Databases whose owner is gone, to be closed by whoever may."""

_PATIENCE = 0.5  # seconds that a fork waits for one lock while it holds others


def guarded(owner: object, lock: RLock, file: Path) -> Database:
    """Open a database whose owner uses it under a lock: no thread forks while another opens one, or holds its lock.

    It is closed when nobody holds the owner any more, and at the end of the process.
    """
    with _one_fork:
        database = Database(file)
        try:
            weakref.finalize(owner, _dispose, database)
            _guarded[database] = lock
        except BaseException:
            database.close()
            raise
        _close_orphans()
    return database


def _dispose(database: Database) -> None:
    """Close a database without waiting: the garbage collector calls this wherever a thread is, whatever locks it holds."""
    _orphans.append(database)
    _unless_busy(_one_fork, _close_orphans)


def _close_orphans() -> None:
    """Close the databases that nobody owns, under `_one_fork`.

    Where another thread uses one, as it may at the process's end, or opens or closes a file just now, that is left to the
    next who opens or frees a database, or forks.
    """
    _unless_busy(descriptors, _close_each)


def _close_each() -> None:
    for database in _orphans.copy():
        lock = _guarded.get(database)
        if lock is None:
            _forget(database)
        else:
            _unless_busy(lock, partial(_close, database))


def _close(database: Database) -> None:
    database.close()  # first, so that whoever cuts this short leaves it to the next
    _forget(database)


def _forget(database: Database) -> None:
    _guarded.pop(database, None)
    with suppress(ValueError):
        _orphans.remove(database)


def _unless_busy(lock: Any, work: Callable[[], None]) -> None:
    """Call under a lock unless another thread has it; wherever a signal handler raises, the lock is as it was."""
    acquired = True  # also where a handler raises before this is known
    try:
        acquired = lock.acquire(blocking=False)
        if acquired:
            work()
    finally:
        if acquired:
            try:
                lock.release()
            except RuntimeError:  # it was not
                acquired = False


def _before() -> None:
    raised: BaseException | None = None
    while True:
        held: _Held = []
        try:
            busy = _acquire_all(held)
            if busy is None:
                for database, _ in held:
                    if database is not None:
                        database.suspend()
                break
            _release(held)
            with busy:  # with no other in hand, since its holder may wait for one of them
                pass
        except BaseException as error:  # of a signal handler: a fork can't be stopped, and must not come unprepared
            _release(held)
            raised = error
    if raised is not None:
        raise raised  # Python says that it is ignored


def _acquire_all(held: _Held) -> Any:
    """Acquire every lock and return None, or return one that another thread holds for long."""
    held.append((None, _one_fork))  # before it is acquired, since a signal handler may raise right after it was
    _one_fork.acquire()
    _forks.append(held)
    for database, lock in [*_guarded.copy().items(), (None, descriptors)]:  # the collector may free one meanwhile
        held.append((database, lock))
        if not lock.acquire(timeout=_PATIENCE):
            held.pop()
            return lock
    return None


def _release(held: _Held) -> None:
    _forks[:] = [other for other in _forks if other is not held]
    while held:
        database, lock = held.pop()
        if database is not None:
            database.resume()
        with suppress(RuntimeError):  # not acquired yet
            lock.release()
    _unless_busy(_one_fork, _close_orphans)  # that were freed meanwhile


def _after(*, in_child: bool) -> None:
    held = _forks.pop()
    if in_child:
        databases = [database for database, _ in held if database is not None]
        for database in sorted(databases, key=lambda database: not database.forked_within):
            database.leave_to_parent()
    if _forks:
        _forks[-1].extend(held)  # the fork that this one came into goes on with them
    else:
        _release(held)


os.register_at_fork(
    before=_before, after_in_parent=partial(_after, in_child=False), after_in_child=partial(_after, in_child=True)
)
