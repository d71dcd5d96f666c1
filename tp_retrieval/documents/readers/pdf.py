"""PDF: sections of each page, under the titles of the outline. Scanned pages hold no text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.section import Heading, Section, cut, trail_after
from tp_retrieval.errors import InputError, OptionalDependencyError

_HYPHEN = re.compile("[\x02\ufffe]\r?\n?")  # PDFium's sign for a hyphen at a line's end


class _Title(NamedTuple):
    page: int
    level: int
    title: str


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of every page with its number from 1; raise `InputError` for a broken or encrypted file."""
    try:
        from pypdfium2 import PdfDocument, PdfiumError
    except ImportError as error:
        raise OptionalDependencyError("pypdfium2", "files") from error
    try:
        document = PdfDocument(file.data)
    except PdfiumError as error:
        reason = "encrypted" if "password" in str(error).lower() else f"no PDF that can be read ({error})"
        raise InputError(f"{file.path}: {reason}") from error
    try:
        outline = _outline(document)
        trail: Sequence[Heading] = ()
        for number in range(len(document)):
            text = _text(document, number)
            titles = _headings(text, [title for title in outline if title.page == number])
            of_page = cut(text, titles, line=None, above=trail, page=number + 1)
            yield from (section for section in of_page if any(map(str.isalpha, section.text)))  # else a page's number
            trail = trail_after(trail, titles)
    except PdfiumError as error:
        raise InputError(f"{file.path}: a page can't be read ({error})") from error
    finally:
        document.close()


def _text(document: Any, number: int) -> str:
    page = document[number]
    try:
        text: str = page.get_textpage().get_text_bounded()
    finally:
        page.close()
    return _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\0", "")


def _outline(document: Any) -> list[_Title]:
    titles = []
    for entry in document.get_toc():
        target, title = entry.get_dest(), " ".join(entry.get_title().split())
        if target is not None and target.get_index() is not None and title:
            titles.append(_Title(target.get_index(), entry.level + 1, title))
    return titles


def _headings(text: str, titles: Sequence[_Title]) -> list[Heading]:
    """Return the titles of a page where its text has them, at its top where it does not."""
    headings, begin = [], 0
    for title in titles:
        words = r"\s+".join(map(re.escape, title.title.split()))
        match = re.compile(rf"^[^\S\n]*(?:[\w.]+[^\S\n]+)?{words}[^\S\n]*$", re.MULTILINE).search(text, begin)
        start, stop = match.span() if match else (begin, begin)
        headings.append(Heading(start, stop, title.level, title.title))
        begin = stop
    return headings
