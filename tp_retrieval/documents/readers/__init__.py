"""Readers, one a format: functions from a file to its sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tp_retrieval.documents.formats import Reader, SourceFile, format_of, suffix_of
from tp_retrieval.documents.readers import code, command, html, markdown, notebook, office, pdf, records, rst, tables
from tp_retrieval.documents.section import Section, cut
from tp_retrieval.errors import InputError

READERS: Mapping[str, Reader] = {
    "text": lambda file: cut(file.text, []),
    "markdown": markdown.sections,
    "rst": rst.sections,
    "html": html.sections,
    "jsonl": records.of_lines,
    "json": records.of_json,
    "table": tables.sections,
    "notebook": notebook.sections,
    "code": code.sections,
    "pdf": pdf.sections,
    "docx": office.docx.sections,
    "pptx": office.pptx.sections,
    "xlsx": office.xlsx.sections,
    "epub": office.epub.sections,
}
"""The reader of each format."""


def sections_of(file: SourceFile) -> Iterator[Section]:
    """Yield a file's sections in order; raise `InputError` for one that can't be read."""
    suffix, name = suffix_of(file.path), format_of(file.path)
    if suffix in file.options.loaders:
        reader: Reader = command.sections
    elif name is not None:
        reader = READERS[name]
    else:
        raise InputError(
            f"{file.path}: no reader for {suffix} files; --loader {suffix}=COMMAND names a command that reads them"
        )
    try:
        yield from reader(file)
    except RecursionError as error:
        raise InputError(f"{file.path}: its elements are nested too deeply") from error
