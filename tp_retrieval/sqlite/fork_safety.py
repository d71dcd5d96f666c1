"""Databases across a fork.

SQLite's connections must not cross a fork: a child would take the parent's file locks for its own, which they are not. And
a child must not get an index that another thread has half changed. So before a fork every owner's lock is acquired and its
database closed; afterwards both processes open it again.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.shared_file import lock as descriptors

_guarded: weakref.WeakKeyDictionary[Database, Any] = weakref.WeakKeyDictionary()
_held: list[tuple[Database, Any]] = []
_one_fork = threading.RLock()
_PATIENCE = 0.5  # seconds that a fork waits for one lock while it holds others


def guarded(lock: RLock, file: Path) -> Database:
    """Open a database whose owner uses it under a lock: no fork comes while it opens, nor while the lock is held."""
    with _one_fork:
        database = Database(file)
        _guarded[database] = lock
    return database


def _before() -> None:
    while True:
        _one_fork.acquire()
        busy = _acquire_all()
        if busy is None:
            break
        _one_fork.release()
        busy.acquire()  # with no other in hand, since its holder may wait for one of them
        busy.release()
    for database, _ in _held:
        database.suspend()
    descriptors.acquire()


def _acquire_all() -> Any:
    """Acquire every owner's lock and return None, or acquire none and return one that another thread holds for long."""
    for database, lock in list(_guarded.items()):
        if not lock.acquire(timeout=_PATIENCE):
            _release_all()
            return lock
        _held.append((database, lock))
    return None


def _release_all() -> None:
    while _held:
        _held.pop()[1].release()


def _after(*, in_child: bool) -> None:
    descriptors.release()
    try:
        for database, _ in _held:
            database.resume(in_child=in_child)
    finally:
        _release_all()
        _one_fork.release()


os.register_at_fork(
    before=_before, after_in_parent=partial(_after, in_child=False), after_in_child=partial(_after, in_child=True)
)
