"""The checksum of a whole database file, written when the file is closed and compared when it is opened.

Rows, maps and meta records have digests of their own; the checksum also covers what lies between them: the full text, the
metadata index, SQLite's trees. It is an XXH3 of 128 bits, since reading a gigabyte must not take a second, in the line
format of `xxhsum -H2`. A file that was written but not closed (a kill, a power loss) has none; SQLite's log guards it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import xxhash

from tp_retrieval.errors import IndexAccessError
from tp_retrieval.sqlite.atomic import atomic_write, flush_folder
from tp_retrieval.sqlite.shared_file import SharedFile

_LONGEST = 4096  # bytes read of a checksum file


class FileChecksum:
    """The checksum of a database file, in a file beside it."""

    def __init__(self, file: Path, descriptor: SharedFile) -> None:
        self._name = file.name
        self._file = file.with_name(f"{file.name}.xxh128")
        self._shared_file = descriptor

    def exists(self) -> bool:
        """Return whether a checksum is stored."""
        return self._file.exists()

    def intact(self) -> bool:
        """Return whether the database file has its stored checksum; True where none is stored."""
        stored = self._stored()
        while stored is not None and stored != self._line():
            again = self._stored()
            if again == stored:
                return False
            stored = again  # another process wrote meanwhile
        return True

    def write(self) -> None:
        """Store the checksum of the database file, which must not change meanwhile."""
        self._replace(self._line())

    def refuse(self) -> None:
        """Store a checksum that no file has, so that the damaged database does not open before it is repaired."""
        self._replace(b"damaged\n")

    def remove(self) -> None:
        """Remove the stored checksum durably, before the database file changes."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise IndexAccessError(f"can't remove {self._file}: {error}") from error
        flush_folder(self._file.parent)

    def _replace(self, line: bytes) -> None:
        for left in self._file.parent.glob(f".{self._file.name}-????????"):  # by a killed process; one at a time writes
            left.unlink(missing_ok=True)
        with atomic_write(self._file) as scratch:
            scratch.write_bytes(line)
            if self._shared_file.is_forbidden():  # its parent goes on, and the line may be of an earlier state
                raise IndexAccessError(f"can't write {self._file}: this process was forked within a call")
            shutil.copymode(self._file.with_name(self._name), scratch)

    def _stored(self) -> bytes | None:
        try:
            with self._file.open("rb") as stream:
                return stream.read(_LONGEST)
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return b""  # something else has its name
        except OSError as error:
            raise IndexAccessError(f"can't read {self._file}: {error}") from error

    def _line(self) -> bytes:
        digest = xxhash.xxh3_128()
        for block in self._shared_file.blocks():
            digest.update(block)
        return f"{digest.hexdigest()}  {self._name}\n".encode()
