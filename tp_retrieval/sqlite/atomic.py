"""Folders and files that outlast a power loss: written aside, flushed, and renamed into place."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(file: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Replace a file durably by the one that the block writes to the yielded path in the same folder, or not at all.

        with atomic_write(file) as scratch:
            scratch.write_bytes(data)

    Raises OSError; the scratch file is removed then, and also where the block raises.
    """
    scratch = scratch or file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        yield scratch
        flush_file(scratch)
        os.replace(scratch, file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    flush_folder(file.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(file: Path) -> None:
    """Make a file's content durable."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
