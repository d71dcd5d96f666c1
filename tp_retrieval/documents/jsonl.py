"""JSON Lines: one JSON object a line, and the document that an object holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tp_retrieval.errors import InputError
from tp_retrieval.types import check_text


@dataclass(frozen=True)
class Record:
    """The document in one JSON object."""

    text: str
    id: str | None = None
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def titled_text(self) -> str:
        """The title and below it the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


def read_objects(text: str, file: Path, *, allow_nan: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of every line that is not blank; of a repeated key the last value counts.

    Raises `InputError` naming file and line for anything but a JSON object, and for NaN and Infinity unless allowed.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=float if allow_nan else _refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}, line {number}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"{file}, line {number}: must be an object, not {type(value).__name__}")
        yield number, value


def read_records(text: str, file: Path) -> Iterator[tuple[int, Record]]:
    """Yield line numbers and records; raise `InputError` naming file and line."""
    for number, value in read_objects(text, file):
        yield number, record_of(value, f"{file}, line {number}")


def record_of(value: Mapping[str, Any], where: str) -> Record:
    """Return the record of an object: `text`, maybe `id` or `_id`, `title` and `metadata`; other keys are metadata, too.

    Raises `InputError` that begins with `where`.
    """
    fields = dict(value)
    text, title = fields.pop("text", None), fields.pop("title", None) or ""
    if not isinstance(text, str):
        raise InputError(f'{where}: must have a string "text"')
    id_ = fields.pop("id", None)
    id_ = fields.pop("_id", None) if id_ is None else id_
    check_text(f"{text}{title}{id_}", where)
    metadata = fields.pop("metadata", None) or {}
    if not isinstance(metadata, dict):
        raise InputError(f'{where}: "metadata" must be an object')
    return Record(text, None if id_ is None else str(id_), str(title), {**fields, **metadata})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
