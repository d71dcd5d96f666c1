"""Sources cut into documents at heading and sentence borders, by the model's own tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from langchain_text_splitters import RecursiveCharacterTextSplitter

from tp_retrieval.documents.sources import Source, records
from tp_retrieval.errors import InputError
from tp_retrieval.types import Document

_SEPARATORS = ["\n\n", "\n", ". ", "? ", "! ", "。", "？", "！", "; ", ", ", " ", ""]
_FENCE = re.compile(r"^\s*(```|~~~)")
_MARKDOWN_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
_ADORNMENT = re.compile(r"""^([=\-~^"'`#*+.:_<>])\1{2,}\s*$""")


@dataclass(frozen=True)
class Section:
    """A stretch of text under one heading, with the headings that lead to it."""

    start: int
    text: str
    headings: tuple[str, ...]


def chunk(source: Source, chunk_tokens: int, count_tokens: Callable[[str], int]) -> list[Document]:
    """Return a source's documents: at most about `chunk_tokens` tokens each, with path, headings and place as metadata.

    `start` and `end` count characters in the file (without byte order mark, a line's end as one), in a record's text
    for .jsonl, and in the page's Markdown for .html. `chunk` counts from 0 to `chunks` within the file.
    """
    splitter = RecursiveCharacterTextSplitter(
        separators=_SEPARATORS,
        keep_separator="end",
        chunk_size=chunk_tokens,
        chunk_overlap=0,
        length_function=count_tokens,
        add_start_index=True,
    )
    pieces = list(_records(source, splitter) if source.format == "jsonl" else _sections(source, splitter))
    digest = source.digest(chunk_tokens)
    total = len(pieces)
    return [
        Document(
            piece.text,
            {**piece.metadata, "path": str(source.path), "digest": digest, "chunk": i, "chunks": total},
            piece.id or f"{source.path}#{i}",
        )
        for i, piece in enumerate(pieces)
    ]


def _sections(source: Source, splitter: RecursiveCharacterTextSplitter) -> Iterator[Document]:
    try:
        text = _html_to_markdown(source.text) if source.format == "html" else source.text
    except RecursionError as error:
        raise InputError(f"{source.path}: its elements are nested too deeply") from error
    find = {"markdown": _markdown_headings, "html": _markdown_headings, "rst": _rst_headings}.get(source.format)
    for section in _cut(text, list(find(text)) if find else []):
        for piece in splitter.create_documents([section.text]):
            start = section.start + piece.metadata["start_index"]
            place = {"headings": list(section.headings), "start": start, "end": start + len(piece.page_content)}
            yield Document(piece.page_content, place)


def _records(source: Source, splitter: RecursiveCharacterTextSplitter) -> Iterator[Document]:
    for record in records(source):
        text = f"{record.title}\n{record.text}" if record.title else record.text
        pieces = splitter.create_documents([text])
        for i, piece in enumerate(pieces):
            start = piece.metadata["start_index"]
            place: dict[str, object] = {"line": record.line, "start": start, "end": start + len(piece.page_content)}
            if record.title:
                place["headings"] = [record.title]
            id_ = record.id if record.id is None or len(pieces) == 1 else f"{record.id}#{i}"
            yield Document(piece.page_content, {**record.metadata, **place}, id_)


@dataclass(frozen=True)
class Heading:
    """A heading's first and last character, its level from 1 and its words."""

    start: int
    stop: int
    level: int
    title: str


def _cut(text: str, headings: list[Heading]) -> Iterator[Section]:
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


def _markdown_headings(text: str) -> Iterator[Heading]:
    offset, fenced = 0, False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            fenced = not fenced
        found = None if fenced else _MARKDOWN_HEADING.match(line)
        if found:
            yield Heading(offset, offset + len(line), len(found[1]), found[2])
        offset += len(line)


def _rst_headings(text: str) -> Iterator[Heading]:
    """Find titles with a line of punctuation under them, and maybe above; styles rank in the order they appear."""
    lines = text.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
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


def _html_to_markdown(html: str) -> str:
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(["script", "style", "noscript", "template", "head"]):
        tag.decompose()
    markdown: str = MarkdownConverter(heading_style=ATX).convert_soup(soup)
    return re.sub(r"\n{3,}", "\n\n", markdown).strip()
