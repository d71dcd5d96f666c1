"""A corpus in .jsonl and .parquet files, cut into slices that workers read independently as documents.

parts = slices([Path("a/passages.jsonl"), Path("b/passages.jsonl")], 1000)
check_rows(parts)                           # a broken row or a repeated id raises before any embedding
documents = list(documents_of(parts[0]))
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tp_retrieval import Document, InputError
from tp_retrieval.documents.jsonl import record_of


@dataclass(frozen=True)
class Slice:
    """A slice of a file: `rows` rows, from byte `begin` of a .jsonl file or row `begin` of a .parquet file.

    `first` is the number of its first row in the file; `name` is the file's, from which rows without an id get one.
    """

    file: str
    name: str
    begin: int
    first: int
    rows: int


def slices(files: Sequence[Path], rows: int) -> list[Slice]:
    """Cut files into slices of at most `rows` rows; raise `InputError` for a file that can't be read."""
    paths = [Path(file).resolve() for file in files]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [part for path in paths for part in _slices(path, path.relative_to(root).as_posix(), rows)]


def check_rows(parts: Sequence[Slice]) -> None:
    """Read every row once; raise `InputError` naming one that is no document, or an id that several have."""
    hashes = np.fromiter((hash(document.id) for part in parts for document in documents_of(part)), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: set[str] = set()
    for part in parts if suspects else ():
        for document in documents_of(part):
            if document.id in seen:
                raise InputError(f"{part.file}: the id {document.id!r} is given more than once; ids must differ")
            if hash(document.id) in suspects:
                seen.add(str(document.id))


def _slices(file: Path, name: str, rows: int) -> Iterator[Slice]:
    try:
        if file.suffix == ".parquet":
            count = pq.ParquetFile(file).metadata.num_rows
            for begin in range(0, count, rows):
                yield Slice(str(file), name, begin, begin, min(rows, count - begin))
            return
        if file.suffix != ".jsonl":
            raise InputError(f"{file}: must end in .jsonl or .parquet")
        begin = first = number = 0
        offset = 0
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    if number == rows:
                        yield Slice(str(file), name, begin, first, number)
                        begin, first, number = offset, first + number, 0
                    number += 1
                offset += len(line)
        if number:
            yield Slice(str(file), name, begin, first, number)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: can't be read ({error})") from error


def documents_of(part: Slice) -> Iterator[Document]:
    """Yield the documents of a slice; raise `InputError` naming a row that is no document."""
    file = Path(part.file)
    for number, row in enumerate(_records(part, file), part.first):
        where = f"{file}, row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: must be an object, not {type(row).__name__}")
        record = record_of(_with_parsed_metadata(row, where), where)
        metadata = {name: value for name, value in record.metadata.items() if value is not None}
        try:
            json.dumps(metadata, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{where}: metadata that JSON can't hold ({error})") from error
        yield Document(record.titled_text, metadata, record.id or f"{part.name}#{number}")


def _with_parsed_metadata(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a row whose metadata may have been a string of JSON, as Parquet files have it."""
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: metadata that JSON can't hold ({error})") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata must be an object, not {type(metadata).__name__}")
    return {**row, "metadata": metadata}


def _records(part: Slice, file: Path) -> Iterator[object]:
    if file.suffix == ".parquet":
        taken = skipped = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=min(part.rows, 10_000)):
            inside = batch.slice(min(max(part.begin - skipped, 0), len(batch)), part.rows - taken)
            skipped += len(batch)
            taken += len(inside)
            yield from inside.to_pylist()
            if taken == part.rows:
                return
        return
    with file.open("rb") as lines:
        lines.seek(part.begin)
        left = part.rows
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{file}, row {part.first + part.rows - left}: not JSON ({error})") from error
                left -= 1
            if not left:
                return
