"""Long texts split at the largest borders that there are: paragraphs, lines, sentences, clauses, words.

The algorithm is that of LangChain's RecursiveCharacterTextSplitter, with which `tests/documents/test_splitting.py` compares
it. That package would bring fifteen others along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_SEPARATORS = ("\n\n", "\n", ". ", "? ", "! ", "。", "？", "！", "; ", ", ", " ", "")


class Piece(NamedTuple):
    """A part of a text, and the position of its first character."""

    start: int
    text: str


def split(text: str, longest: int, measure: Callable[[str], int]) -> Iterator[Piece]:
    """Yield the pieces of a text without the spaces around them, each of at most about `longest` by `measure`."""
    begin = 0
    for piece in _split(text, _SEPARATORS, longest, measure):
        begin = text.find(piece, begin)
        yield Piece(begin, piece)
        begin += len(piece)


def _split(text: str, separators: Sequence[str], longest: int, measure: Callable[[str], int]) -> Iterator[str]:
    """Yield pieces: parts between the first separator that occurs, joined as long as they fit, or split further."""
    used = next(i for i, separator in enumerate(separators) if separator in text)
    fitting: list[str] = []
    for part in _parts(text, separators[used]):
        if measure(part) < longest:
            fitting.append(part)
            continue
        yield from _joined(fitting, longest, measure)
        fitting = []
        if separators[used + 1 :]:
            yield from _split(part, separators[used + 1 :], longest, measure)
        else:
            yield part
    yield from _joined(fitting, longest, measure)


def _parts(text: str, separator: str) -> list[str]:
    """Return the parts of a text that end in a separator, or its characters."""
    if not separator:
        return list(text)
    *ended, last = re.split(f"({re.escape(separator)})", text)
    parts = [part + end for part, end in zip(ended[::2], ended[1::2], strict=True)]
    return [part for part in (*parts, last) if part]


def _joined(parts: Sequence[str], longest: int, measure: Callable[[str], int]) -> Iterator[str]:
    """Yield parts joined as long as they fit."""
    current: list[str] = []
    sizes: list[int] = []
    for part in parts:
        size = measure(part)
        if current and sum(sizes) + size > longest:
            yield from filter(None, ["".join(current).strip()])
            while sum(sizes) > 0:  # what counts nothing goes with the next
                del current[0], sizes[0]
        current.append(part)
        sizes.append(size)
    yield from filter(None, ["".join(current).strip()])
