"""CSV and TSV: a section a row, as lines of "column: value"."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from tp_retrieval.documents.formats import SourceFile, suffix_of
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import InputError

_SAMPLE = 8_192  # characters that show which separator a file has


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the rows below the header, with their line in the file."""
    reader = csv.reader(io.StringIO(file.text), delimiter=_delimiter(file))
    try:
        names = names_of(next(reader, []))
        line = reader.line_num + 1
        for row in reader:
            yield from of_row(names, row, line=line)
            line = reader.line_num + 1  # a row may take several
    except csv.Error as error:
        raise InputError(f"{file.path}, line {reader.line_num}: no CSV ({error})") from error


def names_of(header: Sequence[object]) -> list[str]:
    """Return the names of columns, of which one without a name has a number."""
    return [str(name).strip() if name not in (None, "") else f"column {i}" for i, name in enumerate(header, 1)]


def of_row(names: list[str], cells: Sequence[object], **metadata: Any) -> Iterator[Section]:
    """Yield a section with `metadata` for a row that holds anything; `names` grow with the columns."""
    names += [f"column {i}" for i in range(len(names) + 1, len(cells) + 1)]
    lines = [f"{name}: {value}" for name, value in zip(names, cells, strict=False) if value not in (None, "")]
    if lines:
        yield Section("\n".join(lines), None, metadata=metadata)


def _delimiter(file: SourceFile) -> str:
    if suffix_of(file.path) == ".tsv":
        return "\t"
    try:
        return csv.Sniffer().sniff(file.text[:_SAMPLE], ",;\t|").delimiter
    except csv.Error:  # a single column, for instance
        return ","
