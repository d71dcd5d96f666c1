"""A way to read a file that SQLite has open in this process, without breaking SQLite's locks on it.

POSIX drops every lock that a process has on a file as soon as any of its descriptors of that file is closed. So a file is
opened here once for all its databases, before SQLite opens it, and closed after the last of them let go of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 18  # stays in the processor

guard = threading.RLock()
"""Held while descriptors are opened or closed, and while the process forks."""

_open: dict[tuple[int, int], tuple[int, int]] = {}
"""Inode to descriptor and the number of those who use it."""


class Descriptor:
    """Share a descriptor of a file, made if it is not there; raises OSError."""

    def __init__(self, file: Path) -> None:
        with guard:
            try:
                status = os.stat(file)
                shared = _open.get((status.st_dev, status.st_ino))
            except FileNotFoundError:
                shared = None
            descriptor, users = shared or (_opened(file), 0)
            status = os.fstat(descriptor)
            self._inode = (status.st_dev, status.st_ino)
            self._descriptor = descriptor
            _open[self._inode] = (descriptor, users + 1)

    def release(self) -> None:
        """Let go of the file, after SQLite did."""
        with guard:
            if self._inode not in _open:
                return
            descriptor, users = _open.pop(self._inode)
            if users > 1:
                _open[self._inode] = (descriptor, users - 1)
            else:
                os.close(descriptor)

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's content."""
        place = 0
        while block := os.pread(self._descriptor, _BLOCK, place):
            yield block
            place += len(block)


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
