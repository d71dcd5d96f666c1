"""HTML: a page's body as Markdown, in sections under its headings. Positions are those in the Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.markdown import headings
from tp_retrieval.documents.section import Heading, Section, cut

_PAGE = MarkdownIt("commonmark").disable(["inline", "html_block"])  # a tag in a page's text is text
_LEFT_OUT = ["script", "style", "noscript", "template", "head"]


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of a page."""
    return of_markdown(as_markdown(file.text))


def of_markdown(markdown: str, **metadata: Any) -> Iterator[Section]:
    """Yield the sections of a page that was converted to Markdown, each with `metadata`."""
    return cut(markdown, [*page_headings(markdown)], line=None, **metadata)


def page_headings(markdown: str) -> Iterator[Heading]:
    """Yield the headings of a page that was converted to Markdown."""
    return headings(markdown, parser=_PAGE)


def as_markdown(html: str) -> str:
    """Return a page's body as Markdown, without scripts and styles."""
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(_LEFT_OUT):
        tag.decompose()
    markdown: str = MarkdownConverter(heading_style=ATX).convert_soup(soup)
    return re.sub(r"\n{3,}", "\n\n", markdown).strip()
