"""Bytes on disk: flushed so that they outlast a power cut, and hashed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably, where they are missing."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        flush_folder(one.parent)


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


def sha256(file: Path) -> str:
    """Return the digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
