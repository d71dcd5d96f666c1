"""Source code: sections at definitions, under the names of the classes and functions around them."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tp_retrieval.documents.formats import LANGUAGES, SourceFile, suffix_of
from tp_retrieval.documents.section import Heading, Section, cut
from tp_retrieval.errors import OptionalDependencyError

_DEFINITION = re.compile(
    "function|method|class|struct|interface|trait|enum|record|module|namespace|object|type|impl|data|constructor|subroutine"
    "|protocol|extension|contract|macro"
)
_NO_DEFINITION = re.compile(
    "parameter|argument|field|call|reference|constant|literal|signature|expression|identifier|annotation|property|import"
    "|variant|prefix|specifier_list"
)
_MOST_ABOVE = 50  # comments above a definition; each is looked for among all that stands beside it
_DEEPEST = 8  # definitions in one another that are sections of their own
_WORD = re.compile(rb"\b(?!end\b)\w")
_AROUND = ("decorated_definition", "export_statement", "template_declaration", "type_declaration", "ambient_declaration")
_ABOVE = ("comment", "line_comment", "block_comment", "attribute_item", "attribute_list", "annotation", "decorator")


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the definitions of a file with their line, each under the names around it, and what stands between them."""
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError as error:
        raise OptionalDependencyError("tree-sitter-language-pack", "files") from error
    parser: Any = get_parser(LANGUAGES[suffix_of(file.path)])  # type: ignore[arg-type]
    lines = file.text.encode().split(b"\n")
    return cut(file.text, _headings(lines, [*_definitions(parser.parse(b"\n".join(lines)).root_node, lines)]))


class _Definition(NamedTuple):
    """A definition's lines from 0, that of its name, how many definitions are around it, and its name."""

    first: int
    named: int
    last: int
    level: int
    name: str


def _definitions(root: Any, lines: Sequence[bytes]) -> Iterator[_Definition]:
    """Yield the definitions that begin a line, outer ones first."""
    waiting = [(root, 1)]
    while waiting:  # not by recursion: generated code nests deeply
        node, level = waiting.pop()
        name, around = _name(node), _with_wrapping(node)
        row, column = around.start_point
        if name is not None and level <= _DEEPEST and not lines[row][:column].strip():
            yield _Definition(_first_line(around), node.start_point[0], around.end_point[0], level, name)
            level += 1
        waiting += [(child, level) for child in reversed(node.named_children)]


def _headings(lines: Sequence[bytes], definitions: Sequence[_Definition]) -> list[Heading]:
    """Return a heading where each definition begins, and one without words where it ends and more than brackets follows."""
    offsets = [*itertools.accumulate((len(line.decode()) + 1 for line in lines), initial=0)]
    headings: dict[int, Heading] = {}
    for d in definitions:  # of those that begin in one line, the outermost
        stop = d.first if d.named == d.last else d.named + 1
        headings.setdefault(d.first, Heading(offsets[d.first], offsets[stop], d.level, d.name))
    borders = sorted({*headings, len(lines)})
    for d in reversed(definitions):
        following = borders[bisect.bisect_right(borders, d.last)]
        if _WORD.search(b" ".join(lines[d.last + 1 : following])):
            at = offsets[d.last + 1]
            headings[d.last + 1] = Heading(at, at, d.level, "")
    return [headings[line] for line in sorted(headings)]


def _name(node: Any) -> str | None:
    """Return the name of a node that is a definition."""
    if not _DEFINITION.search(node.type) or _NO_DEFINITION.search(node.type):
        return None
    name = node.child_by_field_name("name") or _declared(node)
    if "impl" in node.type:
        name = node.child_by_field_name("type")
    return None if name is None else " ".join(name.text.decode(errors="replace").split())


def _declared(node: Any) -> Any:
    """Return the name in a declarator of C, or the first identifier of a grammar without named fields."""
    declarator = node.child_by_field_name("declarator")
    if declarator is None:
        return next((child for child in node.named_children if child.type.endswith("identifier")), None)
    while (inner := declarator.child_by_field_name("declarator")) is not None:
        declarator = inner
    return declarator


def _with_wrapping(node: Any) -> Any:
    """Return a definition with its decorators or the statement that exports it."""
    while node.parent is not None and node.parent.type in _AROUND:
        node = node.parent
    return node


def _first_line(node: Any) -> int:
    """Return the first line of a definition with the comments and attributes directly above it."""
    first, above = node, node.prev_named_sibling
    for _ in range(_MOST_ABOVE):
        if above is None or above.type not in _ABOVE or above.end_point[0] < first.start_point[0] - 1:
            break
        first, above = above, above.prev_named_sibling
    return int(first.start_point[0])
