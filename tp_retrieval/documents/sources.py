"""Source files: the readable ones among paths and below folders, and their text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tp_retrieval.documents.jsonl import read_records
from tp_retrieval.errors import InputError

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


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the readable files among paths and below folders, in order, absolute; raise `InputError` if there are none."""
    files: dict[Path, None] = {}
    for path in paths:
        if not _exists(path):
            raise InputError(f"{path}: no such file or folder")
        if path.is_dir():
            visible = (file for file in sorted(path.rglob("*")) if not _hidden(file, path))
            readable = [file for file in visible if _format(file) and file.is_file()]
            if not readable:
                raise InputError(f"{path}: no file here ends in {', '.join(FORMATS)}")
        elif _format(path) is None:
            raise InputError(f"{path}: files must end in {', '.join(FORMATS)}")
        else:
            readable = [path]
        files |= dict.fromkeys(file.resolve() for file in readable)
    return list(files)


def read(path: Path) -> Source:
    """Read a file as UTF-8; raise `InputError` naming it if it is missing, in another encoding or binary."""
    try:
        text = decoded(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    if "\0" in text:
        raise InputError(f"{path}: a binary file, not text (a NUL byte at {text.index(chr(0))})")
    return Source(path, _format(path) or "text", text.replace("\r\n", "\n"))


def decoded(data: bytes, path: Path) -> str:
    """Return UTF-8 as text without a byte order mark; raise `InputError` naming the file and the byte that is wrong."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start})") from error


def read_texts(path: Path) -> list[str]:
    """Return one text a line of a plain file, empty lines included, or the `text` of each record of a .jsonl file."""
    if not _exists(path) or not path.is_file():
        raise InputError(f"{path}: no such file")
    source = read(path)
    if source.format == "jsonl":
        return [record.titled_text for _, record in read_records(source.text, path)]
    lines = source.text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _format(path: Path) -> str | None:
    name = path.name.lower()
    suffix = ".rst.txt" if name.endswith(".rst.txt") else path.suffix.lower()
    return FORMATS.get(suffix)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"{path}: no such file or folder that can be read ({error.strerror})") from error


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
