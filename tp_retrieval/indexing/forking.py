"""What must hold when a process that has indexes open forks.

SQLite's connections must not cross a fork, and a child must not get an index that another thread was half through changing.
"""

from __future__ import annotations

import os
import weakref
from threading import RLock
from typing import Any

from tp_retrieval.indexing.database import Database

_guarded: weakref.WeakKeyDictionary[Database, Any] = weakref.WeakKeyDictionary()
_held: list[tuple[Database, Any]] = []


def guard(lock: RLock, database: Database) -> None:
    """Fork only while nobody holds the lock, and give the child a connection of its own."""
    _guarded[database] = lock


def _before() -> None:
    _held[:] = list(_guarded.items())
    for _, lock in _held:
        lock.acquire()


def _after() -> None:
    while _held:
        _held.pop()[1].release()


def _after_in_child() -> None:
    for database, _ in _held:
        database.reopen()
    _after()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
