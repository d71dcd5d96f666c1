"""A digest of the whole database file, noted when it is closed, so that a damaged byte is noticed when it is opened.

Rows, maps and meta records have digests of their own; the seal also covers what lies between them: the full text, the
facts, SQLite's trees. It is an XXH3 of 128 bits, since reading a gigabyte must not take a second, in the line format of
`xxhsum`. A file that was written but not closed (a kill, a power cut) has no seal, and SQLite's own log guards it.
"""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from tp_retrieval.indexing.disk import flush_folder

_BLOCK = 1 << 18  # stays in the processor


class Seal:
    """Keep the digest of a file beside it."""

    def __init__(self, file: Path) -> None:
        self._sealed = file
        self._file = file.with_name(f"{file.name}.xxh128")

    def exists(self) -> bool:
        """Return whether a digest was noted."""
        return self._file.exists()

    def intact(self) -> bool:
        """Return whether the file is as it was when it was sealed; True without a seal."""
        try:
            noted = self._file.read_bytes()
        except FileNotFoundError:
            return True
        return noted == self._line()

    def write(self) -> None:
        """Note the file's digest, which must not change meanwhile."""
        scratch = self._file.with_suffix(".tmp")
        scratch.write_bytes(self._line())
        os.replace(scratch, self._file)

    def remove(self) -> None:
        """Forget the digest, durably, before the file changes."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return
        flush_folder(self._file.parent)

    def _line(self) -> bytes:
        digest = xxhash.xxh3_128()
        with self._sealed.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        return f"{digest.hexdigest()}  {self._sealed.name}\n".encode()
