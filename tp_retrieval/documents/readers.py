"""Readers, one a format: the text of a file or record in sections, each under its headings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt

from tp_retrieval.documents.jsonl import read_records
from tp_retrieval.documents.sources import Source
from tp_retrieval.errors import InputError

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=\S).*?^(---|\.\.\.)[ \t]*(\n|\Z)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_ADORNMENT = re.compile(r"""^([=\-~^"'`#*+.:_<>])\1{2,}\s*$""")
_MARKDOWN = MarkdownIt("commonmark").disable("inline")  # blocks are enough to find headings
_PAGE = MarkdownIt("commonmark").disable(["inline", "html_block"])  # a tag in a page's text is text


@dataclass(frozen=True)
class Section:
    """A text, the position of its first character in the file or record, and the headings above it.

    `id` and `line` are those of a record, None otherwise.
    """

    start: int
    text: str
    headings: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Heading:
    """A heading's range of characters, its level from 1 and its words."""

    start: int
    stop: int
    level: int
    title: str


def sections(source: Source) -> Iterator[Section]:
    """Yield a file's sections in order; raise `InputError` for a broken record or a page nested too deeply."""
    return _records(source) if source.format == "jsonl" else _headed(source)


def _records(source: Source) -> Iterator[Section]:
    for line, record in read_records(source.text, source.path):
        headings = (record.title,) if record.title else ()
        yield Section(0, record.titled_text, headings, record.metadata, record.id, line)


def _headed(source: Source) -> Iterator[Section]:
    try:
        text = html_to_markdown(source.text) if source.format == "html" else source.text
    except RecursionError as error:
        raise InputError(f"{source.path}: its elements are nested too deeply") from error
    find = _HEADINGS.get(source.format)
    return cut(text, list(find(text)) if find else [])


def cut(text: str, headings: list[Heading]) -> Iterator[Section]:
    """Cut a text before each heading; one with nothing under it goes with the next."""
    trail: list[Heading] = []
    begin = 0
    for heading, following in itertools.pairwise([Heading(0, 0, 0, ""), *headings, Heading(len(text), 0, 0, "")]):
        if heading.title:
            trail = [*(above for above in trail if above.level < heading.level), heading]
        last = following.start == len(text)
        if text[heading.stop : following.start].strip() or (last and text[begin:].strip()):
            yield Section(begin, text[begin : following.start], tuple(above.title for above in trail))
            begin = following.start


def markdown_headings(text: str) -> Iterator[Heading]:
    """Return the ATX and Setext headings of CommonMark that are in no list or quote; YAML front matter holds none."""
    front = _FRONT_MATTER.match(text)
    return _parsed_headings(_MARKDOWN, text, front.end() if front else 0)


def page_headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a page that was converted to Markdown."""
    return _parsed_headings(_PAGE, text, 0)


def _parsed_headings(parser: MarkdownIt, text: str, begin: int) -> Iterator[Heading]:
    offsets = [match.start() for match in _LINE.finditer(text, begin)]
    tokens = parser.parse(text[begin:])
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map and inline.content:
            first, last = opening.map
            title = " ".join(inline.content.split())
            yield Heading(offsets[first], offsets[last], int(opening.tag[1]), title)


def rst_headings(text: str) -> Iterator[Heading]:
    """Yield titles with a line of punctuation under them, and maybe above; styles rank in the order they appear."""
    lines = text.splitlines(keepends=True)
    offsets = [0, *itertools.accumulate(map(len, lines))]
    styles: list[tuple[str, bool]] = []
    for i in range(1, len(lines)):
        under, title = _ADORNMENT.match(lines[i]), lines[i - 1].strip()
        if under is None or not title or _ADORNMENT.match(lines[i - 1]) or len(lines[i].rstrip()) < len(title):
            continue
        over = i >= 2 and lines[i - 2].rstrip() == lines[i].rstrip()
        if not over and lines[i - 1][0].isspace():
            continue
        style = (under[1], over)
        if style not in styles:
            styles.append(style)
        yield Heading(offsets[i - 2 if over else i - 1], offsets[i + 1], styles.index(style) + 1, title)


def html_to_markdown(html: str) -> str:
    """Return a page's body as Markdown, without scripts and styles."""
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(["script", "style", "noscript", "template", "head"]):
        tag.decompose()
    markdown: str = MarkdownConverter(heading_style=ATX).convert_soup(soup)
    return re.sub(r"\n{3,}", "\n\n", markdown).strip()


_HEADINGS: dict[str, Callable[[str], Iterator[Heading]]] = {
    "markdown": markdown_headings,
    "html": page_headings,
    "rst": rst_headings,
}
