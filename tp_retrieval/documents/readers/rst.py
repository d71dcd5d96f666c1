"""reStructuredText: sections under titles that are underlined with punctuation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.section import Heading, Section, cut

_ADORNMENT = re.compile(r"""^([=\-~^"'`#*+.:_<>])\1{2,}\s*$""")


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of a file."""
    return cut(file.text, [*headings(file.text)])


def headings(text: str) -> Iterator[Heading]:
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
