"""Records of LangChain's indexing API in SQLite: which documents were indexed, when and from which source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import RLock

from langchain_core.indexing import RecordManager

from tp_retrieval import InputError
from tp_retrieval.integrations.worker import Worker, asynchronous
from tp_retrieval.sqlite.fork_safety import guarded
from tp_retrieval.types import checked_texts

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    namespace TEXT NOT NULL, key TEXT NOT NULL, group_id TEXT, updated_at REAL NOT NULL, PRIMARY KEY (namespace, key)
)"""


class TPRecordManager(RecordManager):
    """Keep the records of a namespace in a SQLite file, so that `index()` goes on where an earlier process stopped.

    The file may lie in an index's folder. The constructor calls `create_schema`. Raises `IndexAccessError` for a path that
    can't be written, `CorruptIndexError` for a damaged file, `IndexLockedError` while another process writes.
    """

    def __init__(self, namespace: str, path: str | Path) -> None:
        super().__init__(namespace)
        if str(path) == ":memory:":
            raise InputError("path: give a file; records in memory are kept by LangChain's InMemoryRecordManager")
        self._worker = Worker()
        self._lock = RLock()
        self._database = guarded(self, self._lock, Path(path))
        with self._lock:
            try:
                self._database.enable_log()
                self.create_schema()
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def create_schema(self) -> None:
        """Create the table unless it exists."""
        with self._lock, self._database.transaction():
            self._database.execute(_SCHEMA)

    def get_time(self) -> float:
        """Return this machine's time in seconds since 1970."""
        return time.time()

    def update(
        self, keys: Sequence[str], *, group_ids: Sequence[str | None] | None = None, time_at_least: float | None = None
    ) -> None:
        """Store the present time for keys; raise `InputError` if the clock is behind `time_at_least`."""
        groups = [None] * len(keys) if group_ids is None else list(group_ids)
        if len(groups) != len(keys):
            raise InputError(f"group_ids: {len(groups)} for {len(keys)} keys")
        now = self.get_time()
        if time_at_least is not None and time_at_least > now:
            raise InputError(f"time_at_least: {time_at_least} lies after this machine's time, {now}")
        named = zip(checked_texts(keys, "keys"), groups, strict=True)
        rows = [(self.namespace, key, group, now) for key, group in named]
        with self._lock, self._database.transaction():
            self._database.execute_many("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Return for each key whether it has a record."""
        sql = "SELECT key FROM records WHERE namespace = ? AND key IN (?)"
        with self._lock:
            stored = {key for (key,) in self._database.select_in(sql, keys, before=[self.namespace])}
        return [key in stored for key in keys]

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Return the keys updated before and after some times that belong to some groups, in the order of updating."""
        condition = "namespace = ?"
        values: list[str | float] = [self.namespace]
        for clause, value in (("updated_at < ?", before), ("updated_at > ?", after)):
            if value is not None:
                condition += f" AND {clause}"
                values.append(value)
        sql = f"SELECT rowid, key FROM records WHERE {condition}"
        with self._lock:
            if group_ids is None:
                rows = self._database.execute(sql, values)
            else:
                rows = list(self._database.select_in(f"{sql} AND group_id IN (?)", group_ids, before=values))
        return [key for _, key in sorted(rows)[:limit]]

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Delete the records of keys; keys without one are ignored."""
        rows = [(self.namespace, key) for key in checked_texts(keys, "keys")]
        with self._lock, self._database.transaction():
            self._database.execute_many("DELETE FROM records WHERE namespace = ? AND key = ?", rows)

    async def aget_time(self) -> float:
        """Return this machine's time in seconds since 1970."""
        return self.get_time()

    acreate_schema = asynchronous(create_schema)
    aupdate = asynchronous(update)
    aexists = asynchronous(exists)
    alist_keys = asynchronous(list_keys)
    adelete_keys = asynchronous(delete_keys)
