"""What LangChain's indexing API remembers of earlier runs, in SQLite."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.indexing import RecordManager

from tp_retrieval import InputError
from tp_retrieval.integrations.worker import Worker

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    namespace TEXT NOT NULL, key TEXT NOT NULL, group_id TEXT, updated_at REAL NOT NULL, PRIMARY KEY (namespace, key)
)"""
_AT_ONCE = 500  # keys in one statement


class TPRecordManager(RecordManager):
    """Keep the records of a namespace in a SQLite file, so that `index()` goes on where an earlier process stopped.

    The file may lie in an index's folder. `create_schema` is called by the constructor already.
    """

    def __init__(self, namespace: str, path: str | Path) -> None:
        super().__init__(namespace)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._worker = Worker()
        self.create_schema()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def create_schema(self) -> None:
        """Make the table if it is not there."""
        with self._lock:
            self._connection.execute(_SCHEMA)

    def get_time(self) -> float:
        """Return the time of the machine that holds the file, in seconds."""
        return time.time()

    def update(
        self, keys: Sequence[str], *, group_ids: Sequence[str | None] | None = None, time_at_least: float | None = None
    ) -> None:
        """Note that keys were seen now; raise `InputError` if the clock is behind `time_at_least`."""
        groups = [None] * len(keys) if group_ids is None else list(group_ids)
        if len(groups) != len(keys):
            raise InputError(f"group_ids: {len(groups)} for {len(keys)} keys")
        now = self.get_time()
        if time_at_least is not None and time_at_least > now:
            raise InputError(f"time_at_least: {time_at_least} lies after this machine's time, {now}")
        rows = [(self.namespace, key, group, now) for key, group in zip(keys, groups, strict=True)]
        with self._lock, self._connection:  # which commits, or rolls back what failed
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Tell for each key whether it is known."""
        known: set[str] = set()
        for part in _parts(keys):
            known |= {row[0] for row in self._select(f"key IN ({_marks(part)})", part)}
        return [key in known for key in keys]

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Return the keys that were updated before and after some times, and belong to some groups."""
        condition, values = "1", []
        for words, value in (("updated_at < ?", before), ("updated_at > ?", after)):
            if value is not None:
                condition += f" AND {words}"
                values.append(value)
        found: list[str] = []
        for part in [None] if group_ids is None else _parts(group_ids):
            of_group = "" if part is None else f" AND group_id IN ({_marks(part)})"
            found += [row[0] for row in self._select(condition + of_group, [*values, *(part or [])])]
        return found if limit is None else found[:limit]

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Forget keys; unknown ones are passed over."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "DELETE FROM records WHERE namespace = ? AND key = ?", [(self.namespace, key) for key in keys]
            )

    def _select(self, condition: str, values: Sequence[object]) -> list[tuple[str]]:
        with self._lock:
            return self._connection.execute(
                f"SELECT key FROM records WHERE namespace = ? AND {condition} ORDER BY rowid", [self.namespace, *values]
            ).fetchall()

    async def acreate_schema(self) -> None:
        """Make the table if it is not there."""
        await self._worker.run(self.create_schema)

    async def aget_time(self) -> float:
        """Return the time of the machine that holds the file, in seconds."""
        return self.get_time()

    async def aupdate(
        self, keys: Sequence[str], *, group_ids: Sequence[str | None] | None = None, time_at_least: float | None = None
    ) -> None:
        """Note that keys were seen now."""
        await self._worker.run(self.update, keys, group_ids=group_ids, time_at_least=time_at_least)

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """Tell for each key whether it is known."""
        return await self._worker.run(self.exists, keys)

    async def alist_keys(self, **asked: Any) -> list[str]:
        """Return the keys that `list_keys` does."""
        return await self._worker.run(self.list_keys, **asked)

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """Forget keys."""
        await self._worker.run(self.delete_keys, keys)


def _parts(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[begin : begin + _AT_ONCE] for begin in range(0, len(values), _AT_ONCE)]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
