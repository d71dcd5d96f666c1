"""Files to read: which of a folder's count, what text they hold, and clear words about those that can't be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tp_retrieval.errors import InputError
from tp_retrieval.types import check_text

FORMATS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".rst.txt": "rst",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "jsonl",
}


@dataclass(frozen=True)
class Source:
    """A file's path, format and raw text."""

    path: Path
    format: str
    text: str

    def digest(self, *settings: object) -> str:
        """Return a digest of the content and of the settings it is split with."""
        return hashlib.sha256(json.dumps([self.text, *settings]).encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """One line of a .jsonl file."""

    line: int
    text: str
    id: str | None = None
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the readable files among paths and below folders, in order, absolute; raise `InputError` if there are none."""
    found: dict[Path, None] = {}
    for path in paths:
        if not _there(path):
            raise InputError(f"{path}: no such file or folder")
        if path.is_dir():
            visible = (file for file in sorted(path.rglob("*")) if not _hidden(file, path))
            files = [file for file in visible if _format(file) and file.is_file()]
            if not files:
                raise InputError(f"{path}: no file here ends in {', '.join(FORMATS)}")
        elif _format(path) is None:
            raise InputError(f"{path}: files must end in {', '.join(FORMATS)}")
        else:
            files = [path]
        found |= dict.fromkeys(file.resolve() for file in files)
    return list(found)


def read(path: Path) -> Source:
    """Read a file as UTF-8; raise `InputError` naming it where it is something else."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {data[error.start]:#04x} at {error.start})") from error
    if "\0" in text:
        raise InputError(f"{path}: a binary file, not text (a NUL byte at {text.index(chr(0))})")
    return Source(path, _format(path) or "text", text.replace("\r\n", "\n"))


def records(source: Source) -> Iterator[Record]:
    """Yield the records of a .jsonl file: `text`, optionally `id` or `_id`, `title`, `metadata`; the rest is metadata."""
    for number, line in enumerate(source.text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{source.path}, line {number}"
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error})") from error
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise InputError(f'{where}: must be an object with a string "text"')
        fields = dict(value)
        text, title = fields.pop("text"), fields.pop("title", None) or ""
        id_ = fields.pop("id", None)
        id_ = fields.pop("_id", None) if id_ is None else id_
        check_text(f"{text}{title}{id_}", where)
        metadata = fields.pop("metadata", None) or {}
        if not isinstance(metadata, dict):
            raise InputError(f'{where}: "metadata" must be an object')
        yield Record(number, text, None if id_ is None else str(id_), str(title), {**fields, **metadata})


def read_texts(path: Path) -> list[str]:
    """Return one text a line of a plain file, empty lines included, or the `text` of each record of a .jsonl file."""
    if not _there(path) or not path.is_file():
        raise InputError(f"{path}: no such file")
    source = read(path)
    if source.format == "jsonl":
        return [f"{record.title}\n{record.text}" if record.title else record.text for record in records(source)]
    lines = source.text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _format(path: Path) -> str | None:
    name = path.name.lower()
    suffix = ".rst.txt" if name.endswith(".rst.txt") else path.suffix.lower()
    return FORMATS.get(suffix)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"{path}: no such file or folder that can be read ({error.strerror})") from error


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
