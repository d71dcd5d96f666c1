"""Jupyter notebooks: a section a cell, under the headings of the Markdown cells; outputs are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.markdown import headings
from tp_retrieval.documents.section import Heading, Section, cut, trail_after
from tp_retrieval.errors import InputError


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the cells with their number from 1."""
    trail: Sequence[Heading] = ()
    for number, (kind, text) in enumerate(_cells(file), 1):
        inside = [*headings(text)] if kind == "markdown" else []
        yield from cut(text, inside, line=None, above=trail, cell=number)
        trail = trail_after(trail, inside)


def _cells(file: SourceFile) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each cell."""
    try:
        notebook = json.loads(file.text)
        sheets: list[Any] = notebook.get("worksheets") or [notebook]  # of format 3
        for cell in (cell for sheet in sheets for cell in sheet["cells"]):
            source = cell.get("source", cell.get("input", ""))
            yield str(cell["cell_type"]), source if isinstance(source, str) else "".join(source)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file.path}: no notebook ({type(error).__name__}: {error})") from error
