"""A digest of the whole database file, noted when it is closed, so that a damaged byte is noticed when it is opened.

Rows, maps and meta records have digests of their own; the seal also covers what lies between them: the full text, the
facts, SQLite's trees. It is an XXH3 of 128 bits, since reading a gigabyte must not take a second, in the line format of
`xxhsum -H2`. A file that was written but not closed (a kill, a power cut) has no seal, and SQLite's own log guards it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import xxhash

from tp_retrieval.errors import IndexAccessError
from tp_retrieval.sqlite.atomic import flush_folder
from tp_retrieval.sqlite.shared_file import SharedFile

_LONGEST = 4096  # bytes of a seal that are looked at


class FileChecksum:
    """Keep the digest of a file beside it."""

    def __init__(self, file: Path, descriptor: SharedFile) -> None:
        self._name = file.name
        self._file = file.with_name(f"{file.name}.xxh128")
        self._shared_file = descriptor

    def exists(self) -> bool:
        """Return whether a digest was noted."""
        return self._file.exists()

    def intact(self) -> bool:
        """Return whether the file is as it was when it was sealed; True without a seal."""
        noted = self._noted()
        while noted is not None and noted != self._line():
            again = self._noted()
            if again == noted:
                return False
            noted = again  # it was written to meanwhile
        return True

    def write(self) -> None:
        """Note the file's digest, which must not change meanwhile."""
        self._put(self._line())

    def refuse(self) -> None:
        """Note that the file is damaged, so that it does not open before it is repaired."""
        self._put(b"damaged\n")

    def remove(self) -> None:
        """Forget the digest, durably, before the file changes."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise IndexAccessError(f"can't remove {self._file}: {error}") from error
        flush_folder(self._file.parent)

    def _put(self, line: bytes) -> None:
        prefix = f".{self._file.name}-"
        for left in self._file.parent.glob(f"{prefix}????????"):  # by a process that was killed; one at a time writes
            left.unlink(missing_ok=True)
        number, scratch = tempfile.mkstemp(prefix=prefix, dir=self._file.parent)
        try:
            with os.fdopen(number, "wb") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(number)
            shutil.copymode(self._file.with_name(self._name), scratch)
            os.replace(scratch, self._file)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def _noted(self) -> bytes | None:
        try:
            with self._file.open("rb") as stream:
                return stream.read(_LONGEST)
        except FileNotFoundError:
            return None
        except OSError:
            return b""  # something else in its place

    def _line(self) -> bytes:
        digest = xxhash.xxh3_128()
        for block in self._shared_file.blocks():
            digest.update(block)
        return f"{digest.hexdigest()}  {self._name}\n".encode()
