"""A source: one file, its name in an index, its format and its bytes.

source = read(Path("docs/guide.md"))
sections = source.sections()
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tp_retrieval.documents.encodings import decoded
from tp_retrieval.documents.formats import ReadingOptions, format_of
from tp_retrieval.documents.jsonl import read_records
from tp_retrieval.documents.readers import sections_of
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import InputError

_READERS = 2  # grows when a reader cuts or names otherwise than before, so that files are read again


@dataclass(frozen=True)
class Source:
    """A file: its path, its name in the index, its bytes, and how they are read."""

    path: Path
    name: str
    data: bytes
    options: ReadingOptions = field(default_factory=ReadingOptions)

    @cached_property
    def text(self) -> str:
        """The text of a file that is one, each line ending in a newline alone; raises `InputError` for a binary file."""
        text = decoded(self.data, self.path, self.options.encoding)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def sections(self) -> Iterator[Section]:
        """Yield the file's sections in order; raise `InputError` for one that can't be read."""
        return sections_of(self)

    def digest(self, *settings: object) -> str:
        """Return a digest of the content and of the settings it is read and split with."""
        made_with = json.dumps([_READERS, self.options.digestible(self.path), *settings]).encode()
        return hashlib.sha256(self.data + made_with).hexdigest()[:16]


def read(path: Path, name: str | None = None, options: ReadingOptions | None = None) -> Source:
    """Read a file's bytes; raise `InputError` naming it if that fails. Its name is by default its path."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    return Source(path, str(path) if name is None else name, data, options or ReadingOptions())


def read_texts(path: Path) -> list[str]:
    """Return one text a line of a plain file, empty lines included, or the `text` of each record of a .jsonl file."""
    try:
        is_file = path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        is_file = False
    if not is_file:
        raise InputError(f"{path}: no such file")
    text = read(path).text
    if format_of(path) == "jsonl":
        return [record.titled_text for _, record in read_records(text, path)]
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
