"""A SQLite file, its transactions, and its errors as ours. The only module that imports sqlite3.

WAL with `synchronous=FULL`, so that what was committed survives a kill or a power loss.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import (
    CorruptIndexError,
    IndexAccessError,
    IndexLockedError,
    InputError,
    TPRetrievalError,
)
from tp_retrieval.sqlite.file_checksum import FileChecksum
from tp_retrieval.sqlite.shared_file import FileState, SharedFile

_BUSY_SECONDS = 30.0
_MOST_VALUES = 500  # of one statement; SQLite's smallest limit is 999

LOWER = "unicode_lower"
"""The SQL name of a function that lowers text of any script; SQLite's own lowers ASCII."""

_DAMAGED = ("malformed", "no such", "decode to UTF-8", "unsupported file format")
"""Words in an OperationalError of a damaged file; other ones mean that it can't be reached."""


class Database:
    """A connection to one file. Not thread-safe: its owner calls it under one lock."""

    def __init__(self, file: Path) -> None:
        self._caller: FrameType | None = None  # the call that opened the current transaction or snapshot
        self.forked_within = False
        """Whether the fork that is under way came into a call of the same thread."""
        self._suspended = self._unconnected = self._abandoned = False
        self.torn_reads = 0
        """How often something was read that another process wrote meanwhile."""
        try:
            self.file = file.absolute()  # a process may change its folder
            self._shared_file = SharedFile(self.file)
        except OSError as error:
            raise IndexAccessError(f"can't open {file}: {error}") from error
        self.checksum = FileChecksum(self.file, self._shared_file)
        self._log = self.file.with_name(f"{self.file.name}-wal")
        self._read_as: FileState | None = None  # the state that a connection which only reads takes for the only one
        self._connections = 0
        self._closed = False
        try:
            self._connect()
        except BaseException:
            self._shared_file.release()
            raise

    def _connect(self) -> None:
        """Connect, or connect only to read where SQLite can't make its files: to one who may read but not write here."""
        state = self._shared_file.state()
        try:
            self._connection, self._read_as = self._connected(str(self.file), timeout=_BUSY_SECONDS), None
        except IndexAccessError as error:
            if not _may_open_files():
                raise
            if self._has_log():
                raise IndexAccessError(
                    f"{self.file}: its latest changes are in its log, which can't be read here"
                ) from error
            uri = f"file:{quote(str(self.file))}?mode=ro&immutable=1"
            self._connection, self._read_as = self._connected(uri, uri=True), state
        self._connections += 1

    def _connected(self, name: str, **options: Any) -> sqlite3.Connection:
        with self.explained():
            connection: sqlite3.Connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False, **options)
            try:
                for pragma in ("synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                connection.create_function(LOWER, 1, _lower, deterministic=True)
            except BaseException:
                connection.close()
                raise
            return connection

    def _has_log(self) -> bool:
        """Return whether changes may be in the log alone."""
        try:
            return self._log.stat().st_size > 0
        except OSError:
            return False

    def _follow_writers(self) -> None:
        """Reconnect a connection that only reads if another process has written, or has made a log to write in."""
        if (self._read_as != self._shared_file.state() or self._has_log()) and self._shared_file.is_at(self.file):
            before = self._connection
            self._connect()
            before.close()

    def suspend(self) -> None:
        """Close the connection before a fork: SQLite's locks and tables of open files must not cross it.

        In the middle of a call of the same thread, as when a signal handler forks, SQLite may be at work, and it stays.
        """
        if self._closed or self._abandoned or self._suspended:
            return
        self.forked_within = _is_running(self._caller)
        if not self.forked_within:
            self._suspended = True
            self._connection.close()

    def resume(self) -> None:
        """Reconnect after a fork, unless the path holds another file by now; if that fails, the next call tries again."""
        self.forked_within = False
        if self._suspended:
            self._suspended = False
            self._unconnected = not self._closed
            with suppress(TPRetrievalError, OSError):
                self._reconnect()

    def _reconnect(self) -> None:
        if self._unconnected and self._shared_file.is_at(self.file):
            self._connect()
            self._unconnected = False

    def leave_to_parent(self) -> None:
        """In the child of a fork that came into a call of the same thread, never touch the file again.

        The parent goes on with the call. SQLite takes the parent's locks for the child's own there, of every connection to
        this file.
        """
        if self.forked_within and not self._abandoned:
            self._connection.interrupt()
            self._connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))  # never closed, which would write
            self._shared_file.forbid()
        self._abandoned = self._abandoned or self._shared_file.is_forbidden()

    def check_own(self) -> None:
        """Raise `IndexAccessError` in a process that must not touch the file."""
        if self._abandoned:
            raise IndexAccessError(f"{self.file}: this process was forked within a call; use the index in its parent")
        if self._suspended:
            raise IndexAccessError(f"{self.file}: this process is being forked; call again")

    def enable_log(self) -> None:
        """Switch a new file to write-ahead logging, with pages that hold three vectors of 576 floats and not only one."""
        self.execute("PRAGMA page_size = 8192")
        self.execute("PRAGMA journal_mode = WAL")

    def vacuum(self) -> None:
        """Write the file anew without the space of what was replaced; outside a transaction."""
        with self.transaction():  # which removes a checksum that another process noted when it closed the file
            pass
        self.execute("VACUUM")
        with self.transaction():  # and one that was noted in between
            pass

    @property
    def writable(self) -> bool:
        """Whether changes are possible: not in a folder where SQLite can't write its log."""
        return self._read_as is None

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._closed

    def check_place(self) -> None:
        """Raise `IndexAccessError` if the file was moved, removed or replaced since it was opened."""
        if not self._shared_file.is_at(self.file):
            raise IndexAccessError(f"{self.file} was moved, removed or replaced since it was opened; open the index again")

    def close(self) -> None:
        """Close the file; a second call is no error and finishes what an interrupt cut short."""
        self._closed = True
        if not self._abandoned:
            self._connection.close()
            self._shared_file.release()

    def close_with_checksum(self) -> None:
        """Close the file, and store its checksum if it has none and no other process has the file open."""
        with suppress(OSError, CorruptIndexError, IndexLockedError, InputError):
            self.check_place()
            if self.writable and not self.checksum.exists():
                self._write_checksum()
        self.close()

    def _write_checksum(self) -> None:
        self.execute("PRAGMA busy_timeout = 0")
        busy, *_ = self.execute("PRAGMA wal_checkpoint(TRUNCATE)")[0]
        if busy:
            return
        self._caller = sys._getframe()  # so that a signal handler's call neither ends this nor writes
        try:
            self.execute("BEGIN IMMEDIATE")
            if self._log.exists() and not self._has_log():  # everything is in the file itself, and nobody may write
                self.checksum.write()
        finally:
            with self.explained():
                self._roll_back()
            self._caller = None

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context whose changes become durable together at its end, or none of them.

        The block belongs to the function that calls this in its `with` statement: where that call has ended without closing
        the block, the next transaction rolls it back. Raises `IndexLockedError`, `IndexAccessError` or `CorruptIndexError`.
        """
        return self._block(sys._getframe(1), writes=True)

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context whose reads see one state of the file; it belongs to its caller as a transaction does."""
        return self._block(sys._getframe(1), writes=False)

    @contextmanager
    def _block(self, caller: FrameType, *, writes: bool) -> Iterator[None]:
        with self.explained():
            self._settle()
            self._reconnect()
            if self._connection.in_transaction:
                raise InputError(
                    f"{self.file}: a call within another one of the same thread, as from a signal handler; call again "
                    "after that one has returned"
                )
            if self._read_as is not None:
                self._follow_writers()
            if writes and not self.writable:  # before the checksum is removed
                raise IndexAccessError(f"{self.file}: its folder is readonly; copy the index to a writable one")
            self._caller = caller
            try:  # BEGIN included: an interrupt may come right after it
                self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                if writes:
                    self.check_place()
                    self.checksum.remove()
                else:
                    self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")  # which fixes the state that is read
                yield
                self._connection.execute("COMMIT" if writes else "ROLLBACK")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, Exception):
                    self._check_unwritten()
                raise
            else:
                self._check_unwritten()
            finally:
                self._caller = None

    def _check_unwritten(self) -> None:
        """Raise `IndexAccessError` if another process wrote what a connection that only reads took for one state."""
        if self._read_as not in (None, self._shared_file.state()):
            self.torn_reads += 1
            raise IndexAccessError(f"{self.file}: another process wrote meanwhile; try again")

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Return a context in which a transaction raises `IndexLockedError` at once where another process writes."""
        self.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self.execute(f"PRAGMA busy_timeout = {int(1000 * _BUSY_SECONDS)}")

    def _settle(self) -> None:
        """Roll back the block of a call that an interrupt ended, which is no longer on the stack.

        An interrupt may come between any two instructions, those at the end of a context manager included, so no block can
        promise to close itself.
        """
        if self._connection.in_transaction and not _is_running(self._caller):
            self._roll_back()

    def _roll_back(self) -> None:
        if not self._abandoned and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self.explained():
            return self._connection.execute(sql, tuple(values)).fetchall()

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one."""
        with self.explained():
            yield from self._connection.execute(sql, tuple(values))

    def select_in(self, sql: str, values: Sequence[Any], *, before: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query that ends in `IN (?)` for any number of values, 500 of them a statement.

        `before` are the values of the question marks before the last one.
        """
        head = sql.removesuffix("(?)")
        for part in chunks(values):
            yield from self.execute(f"{head}({','.join('?' * len(part))})", (*before, *part))

    def numbers(self, sql: str, values: Sequence[Any] = ()) -> NDArray[np.int64]:
        """Return the integers of a query of one column, in any order; raise `CorruptIndexError` for anything else.

        SQLite joins them, which is twice as fast as a Python object for each.
        """
        row = self.first(
            f"WITH one_column(number) AS ({sql}) SELECT group_concat(number), count(*) FROM one_column", values
        )
        joined, count = row or (None, 0)
        try:
            numbers = np.fromstring(joined or "", dtype=np.int64, sep=",")
        except (TypeError, ValueError) as error:
            raise CorruptIndexError(f"{self.file}: a damaged number ({error})") from error
        if len(numbers) != count:
            raise CorruptIndexError(f"{self.file}: a damaged number (of {count}, {len(numbers)} can be read)")
        return numbers

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""
        with self.explained():
            self._connection.executemany(sql, rows)

    def first(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, None if there is none."""
        with self.explained():
            row: tuple[Any, ...] | None = self._connection.execute(sql, tuple(values)).fetchone()
        return row

    def size(self) -> int:
        """Return the bytes of the file, without what is still in its log."""
        row = self.first("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return 0 if row is None else int(row[0])

    def data_version(self) -> tuple[int, int]:
        """Return a value that changes when another connection commits: our connection's number and SQLite's counter."""
        return self._connections, int(self.execute("PRAGMA data_version")[0][0])

    def objects(self) -> set[tuple[Any, ...]]:
        """Return type, name and SQL of every table, index, view and trigger."""
        return set(self.execute("SELECT type, name, sql FROM sqlite_master"))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise SQLite's errors as ours, with the file's name."""
        self.check_own()
        try:
            try:
                yield
            except sqlite3.Error:
                self.check_own()  # a signal handler may have forked meanwhile
                raise
        except sqlite3.ProgrammingError as error:
            if self._closed:
                raise InputError(f"{self.file}: the index is closed ({error})") from error
            self.check_place()  # after a fork another file was there, and none was opened
            raise InputError(f"{self.file}: {error}") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise IndexLockedError(f"{self.file}: another process is writing ({error}); try again") from error
            if any(sign in str(error) for sign in _DAMAGED):
                raise CorruptIndexError(f"{self.file}: {error}") from error
            raise IndexAccessError(f"{self.file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptIndexError(f"{self.file}: {error}") from error
        except UnicodeDecodeError as error:  # of SQLite's own message, which cites a damaged schema
            raise CorruptIndexError(f"{self.file}: malformed database schema ({error})") from error


def _may_open_files() -> bool:
    """Return whether the process may open as many files more as a connection takes."""
    opened: list[int] = []
    try:
        for _ in range(4):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    finally:
        for number in opened:
            os.close(number)
    return True


def _is_running(call: FrameType | None) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield values in parts that one statement takes."""
    for begin in range(0, len(values), _MOST_VALUES):
        yield values[begin : begin + _MOST_VALUES]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def objects_made_by(statements: Sequence[str]) -> set[tuple[Any, ...]]:
    """Return type, name and SQL of what statements create."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement)
        return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))
    finally:
        connection.close()
