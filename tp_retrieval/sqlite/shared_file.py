"""Reading a file that SQLite has open in this process without breaking SQLite's locks on it.

POSIX drops every lock that a process has on a file as soon as any of its descriptors of that file is closed. So a file is
opened here once for all its databases, before SQLite opens it, and closed after the last of them released it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 18  # bytes, which stay in the processor's cache

lock = threading.RLock()
"""Held while descriptors are opened or closed, and while the process forks."""

FileState = tuple[int, int]
"""When a file was written last, in nanoseconds, and its bytes."""

_open: dict[tuple[int, int], _Shared] = {}
"""The open descriptor of each inode."""

_forbidden: set[tuple[int, int]] = set()
"""Inodes that this process must not open, since SQLite's tables of open files hold a connection of its parent."""


class _Shared:
    """An open descriptor and the `SharedFile`s that use it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.others: list[int] = []
        """Further descriptors of the same file, which may not be closed before."""
        self.users: set[int] = set()


class SharedFile:
    """A file opened once in this process, created if it is missing; raises OSError."""

    def __init__(self, file: Path) -> None:
        with lock:
            shared = self._already_open(file)
            if shared is None:
                shared = _Shared(_opened(file))
            self._inode = _inode(os.fstat(shared.number))
            self._shared = _open.setdefault(self._inode, shared)
            self._shared.users.add(id(self))
            if self._shared is not shared:  # the file was replaced meanwhile by one that is open
                self._shared.others.append(shared.number)

    def _already_open(self, file: Path) -> _Shared | None:
        """Return the open descriptor of a file, with this user added, or None."""
        try:
            inode = _inode(os.stat(file))
        except FileNotFoundError:
            return None
        if inode in _forbidden:
            raise PermissionError("this process was forked within a call that used the file")
        shared = _open.get(inode)
        if shared is None:
            return None
        shared.users.add(id(self))
        closed = _open.get(inode) is not shared  # by the garbage collector or a signal handler, right before
        return None if closed else shared

    def is_at(self, file: Path) -> bool:
        """Return whether the file is the one at this path now."""
        try:
            return _inode(os.stat(file)) == self._inode
        except OSError:
            return False

    def forbid(self) -> None:
        """Never open the file in this process again."""
        _forbidden.add(self._inode)

    def is_forbidden(self) -> bool:
        """Return whether this process must not touch the file."""
        return self._inode in _forbidden

    def state(self) -> FileState:
        """Return what changes when the file is written."""
        status = os.fstat(self._shared.number)
        return status.st_mtime_ns, status.st_size

    def release(self) -> None:
        """Release the file, after SQLite released it; a second call is no error."""
        with lock:
            if id(self) not in self._shared.users:
                return
            self._shared.users.discard(id(self))
            if not self._shared.users and _open.get(self._inode) is self._shared:
                del _open[self._inode]
                for number in (self._shared.number, *self._shared.others):
                    os.close(number)

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's content."""
        offset = 0
        while block := os.pread(self._shared.number, _BLOCK, offset):
            yield block
            offset += len(block)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
