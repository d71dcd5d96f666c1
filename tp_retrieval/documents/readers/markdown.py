"""Markdown: sections under ATX and Setext headings; YAML front matter is metadata."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml
from markdown_it import MarkdownIt

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.section import Heading, Section, cut

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=\S)(.*?)^(---|\.\.\.)[ \t]*(\n|\Z)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_ANCHOR = re.compile(r"\s*\{[#:][^{}]*\}$")
_MARKDOWN = MarkdownIt("commonmark").disable("inline")  # blocks are enough to find headings


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of a Markdown file; its front matter is metadata of each."""
    text = file.text
    front = _FRONT_MATTER.match(text)
    metadata = None if front is None else _metadata(front[1])
    begin = 0 if front is None else front.end()
    dropped = 0 if metadata is None else begin  # what is no metadata stays in the text
    for section in cut(text[dropped:], [*headings(text[dropped:], begin - dropped)], line=1 + text.count("\n", 0, dropped)):
        yield replace(section, start=dropped + section.start, metadata=metadata or {})


def headings(text: str, begin: int = 0, parser: MarkdownIt = _MARKDOWN) -> Iterator[Heading]:
    """Yield the ATX and Setext headings of CommonMark behind `begin` that are in no list or quote."""
    offsets = [match.start() for match in _LINE.finditer(text, begin)]
    tokens = parser.parse(text[begin:])
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map and inline.content:
            first, last = opening.map
            title = _ANCHOR.sub("", " ".join(inline.content.split()))
            if title:
                yield Heading(offsets[first], offsets[last], int(opening.tag[1]), title)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _metadata(front: str) -> Mapping[str, Any] | None:
    """Return the metadata of front matter as JSON holds them, None if it is no YAML mapping."""
    try:
        value = yaml.load(front, _PlainLoader)
        if not isinstance(value, dict):
            return None
        metadata = {str(key): _plain(item) for key, item in value.items()}
        json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):  # what its tags raise
        return None
    return metadata


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, set, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
