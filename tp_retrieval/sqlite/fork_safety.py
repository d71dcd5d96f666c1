"""What must hold when a process that has indexes open forks.

SQLite's connections must not cross a fork: a child would take the parent's file locks for its own, which it has not. And a
child must not get an index that another thread is half through changing. So every index comes to rest before a fork, its
file is closed, and opened again on both sides.
"""

from __future__ import annotations

import os
import threading
import weakref
from threading import RLock
from typing import Any

from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.shared_file import guard as descriptors

_guarded: weakref.WeakKeyDictionary[Database, Any] = weakref.WeakKeyDictionary()
_held: list[tuple[Database, Any]] = []
_one_fork = threading.RLock()


def guard(lock: RLock, database: Database) -> None:
    """Fork only while nobody holds the lock, and give parent and child a connection each."""
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
