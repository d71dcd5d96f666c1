"""Databases across a fork.

SQLite's connections must not cross a fork: a child would take the parent's file locks for its own, which they are not. And
a child must not get an index that another thread has half changed. So before a fork every owner's lock is acquired and its
database closed; afterwards both processes open it again.
"""

from __future__ import annotations

import os
import threading
import weakref
from threading import RLock
from typing import Any

from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.shared_file import lock as descriptors

_guarded: weakref.WeakKeyDictionary[Database, Any] = weakref.WeakKeyDictionary()
_held: list[tuple[Database, Any]] = []
_one_fork = threading.RLock()


def guard(lock: RLock, database: Database) -> None:
    """Delay forks while the lock is held, and reconnect the database in parent and child."""
    _guarded[database] = lock


def _before() -> None:
    _one_fork.acquire()
    _held[:] = list(_guarded.items())
    for _, lock in _held:
        lock.acquire()
    for database, _ in _held:
        database.suspend()
    descriptors.acquire()


def _after() -> None:
    descriptors.release()
    try:
        for database, _ in _held:
            database.resume()
    finally:
        while _held:
            _held.pop()[1].release()
        _one_fork.release()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
