"""EPUB books: sections under the headings of each chapter, in reading order."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from tp_retrieval.documents.encodings import decoded
from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.html import as_markdown, of_markdown
from tp_retrieval.documents.readers.office.archive import opened
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import InputError, OptionalDependencyError

_CONTAINER = "META-INF/container.xml"
_OF_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OF_PACKAGE = "{http://www.idpf.org/2007/opf}"


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of a book's chapters, with the chapter's number from 1, as `chapter`."""
    with opened(file) as archive:
        pages = [decoded(archive.read(name), file.path) for name in _reading_order(archive, file)]
    for number, page in enumerate(pages, 1):
        yield from of_markdown(as_markdown(page), chapter=number)


def _reading_order(archive: zipfile.ZipFile, file: SourceFile) -> list[str]:
    """Return the names of the pages that the book's spine lists."""
    try:
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    except ImportError as error:
        raise OptionalDependencyError("defusedxml", "files") from error
    try:
        names = [
            root.get("full-path", "") for root in fromstring(archive.read(_CONTAINER)).iter(f"{_OF_CONTAINER}rootfile")
        ]
        name = names[0]
        package = fromstring(archive.read(name))
    except DefusedXmlException as error:
        raise InputError(f"{file.path}: its XML declares entities, which a book has no need of") from error
    items = {item.get("id"): item.get("href") for item in package.iter(f"{_OF_PACKAGE}item")}
    listed = [items.get(entry.get("idref")) or "" for entry in package.iter(f"{_OF_PACKAGE}itemref")]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(href))) for href in listed]
