"""Sections: the parts of a file between its headings, which chunks do not cross."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BELOW = 1 << 10  # a level below all others
_POSITIONS = {
    "line": ":",
    "page": ", page ",
    "cell": ", cell ",
    "row": ", row ",
    "record": ", record ",
    "chapter": ", chapter ",
}


@dataclass(frozen=True)
class Section:
    """A text, the headings above it, and where it stands.

    `start` counts characters in the file's text. `line` is that of the first character, where the text's lines are lines of
    the file. `metadata` holds what else says where it stands, such as `page`, and a record's own. `headings` is None for a
    record without a title, and `id` is a record's.
    """

    text: str
    headings: tuple[str, ...] | None = ()
    start: int = 0
    line: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Heading:
    """A heading's range of characters, its level from 1 and its words; without words it ends the sections above it."""

    start: int
    stop: int
    level: int
    title: str


def cut(
    text: str, headings: Sequence[Heading], *, line: int | None = 1, above: Sequence[Heading] = (), **metadata: Any
) -> Iterator[Section]:
    """Cut a text before each heading; one with nothing under it goes with the next.

    `line` is the number of the text's first line, None where lines are not those of a file. `above` are the headings that
    stand before the text, and `metadata` that of every section.
    """
    begin, trail, first = 0, above, line
    top, end = Heading(0, 0, _BELOW, ""), Heading(len(text), 0, 0, "")
    for heading, following in itertools.pairwise([top, *headings, end]):
        trail = trail_after(trail, [heading])
        is_last = following.start == len(text)
        if text[heading.stop : following.start].strip() or (is_last and text[begin:].strip()):
            part, titles = text[begin : following.start], tuple(one.title for one in trail)
            yield Section(part, titles, begin, first, metadata)
            begin = following.start
            first = None if first is None else first + part.count("\n")


def trail_after(above: Sequence[Heading], headings: Iterable[Heading]) -> Sequence[Heading]:
    """Return the headings that a text stands under after further ones."""
    trail = [*above]
    for heading in headings:
        trail = [one for one in trail if one.level < heading.level]
        if heading.title:
            trail.append(heading)
    return trail


def position_of(metadata: Mapping[str, Any]) -> str:
    """Return where in its file a chunk stands by its metadata, such as ":12" or ", page 3"; "" if they do not say."""
    return next((f"{sign}{metadata[name]}" for name, sign in _POSITIONS.items() if isinstance(metadata.get(name), int)), "")
