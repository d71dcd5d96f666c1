"""Spreadsheets: a section a row, as lines of "column: value", under the sheet's name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.office.archive import opened
from tp_retrieval.documents.readers.tables import names_of, of_row
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import OptionalDependencyError


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the rows below each sheet's first row that holds anything, with their number; formulas by their last value."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise OptionalDependencyError("openpyxl", "files") from error
    with opened(file, InvalidFileException):
        book = load_workbook(io.BytesIO(file.data), read_only=True, data_only=True)
        found = []
        for sheet in book.worksheets:
            header = None
            sheet.reset_dimensions()  # which may claim billions of cells
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                if header is not None:
                    of_sheet = of_row(header, row, sheet=sheet.title, row=number)
                    found += [replace(section, headings=(sheet.title,)) for section in of_sheet]
                elif any(value is not None for value in row):
                    header = names_of(row)
    return iter(found)
