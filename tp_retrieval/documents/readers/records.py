"""JSON and JSON Lines: a section for each object that holds a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.jsonl import Record, read_objects, record_of
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import InputError


def of_lines(file: SourceFile) -> Iterator[Section]:
    """Yield the records of a .jsonl file with their line."""
    for line, value in read_objects(file.text, file.path):
        where = f"{file.path}, line {line}"
        for record in _records(value, file.options.json_text, where):
            yield _section(record, {"line": line})


def of_json(file: SourceFile) -> Iterator[Section]:
    """Yield the records of a .json file with their number: those that the path names, or those of a list."""
    try:
        value = json.loads(file.text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.path}: not JSON ({error})") from error
    path = file.options.json_text
    if path is None and not (isinstance(value, list) and value and all(_has_text(item) for item in value)):
        raise InputError(f'{file.path}: no list of objects with a "text"; --json-text PATH names where texts are')
    for number, record in enumerate(_records(value, path or "[].text", str(file.path)), 1):
        yield _section(record, {"record": number})


def _has_text(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def _records(value: Any, path: str | None, where: str) -> Iterator[Record]:
    """Yield the records whose text a path such as "items[].body" names; the other fields beside a text are metadata."""
    if path is None:
        yield record_of(value, where)
        return
    *steps, last = path.replace("[]", ".[]").lstrip(".").split(".")
    values = [value]
    for step in steps:
        values = [inner for outer in values for inner in _inside(outer, step)]
    for found in values:
        if isinstance(found, Mapping) and isinstance(found.get(last), str):
            others = {name: field for name, field in found.items() if name != last}
            yield record_of({**others, "text": found[last]}, where)


def _inside(value: Any, step: str) -> list[Any]:
    if step == "[]":
        return value if isinstance(value, list) else []
    return [value[step]] if isinstance(value, Mapping) and step in value else []


def _section(record: Record, position: Mapping[str, int]) -> Section:
    headings = (record.title,) if record.title else None
    return Section(record.titled_text, headings, metadata={**record.metadata, **position}, id=record.id)
