"""Tables of prepending's worth by what a text is like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.tables.markdown import NAMES, gain, table
from benchmarks.tables.open_questions.scopes import MAPS

COLUMNS = tuple((map_, where) for map_ in MAPS for where in ("last", "best"))


def lines(figures: Any, key: str, names: tuple[str, ...], value: str) -> str:
    """Return a row for each group, genre or property, with columns of maps and exits."""
    by_row: dict[tuple[str, ...], dict[tuple[str, str], Any]] = {}
    for line in figures[key]:
        by_row.setdefault(tuple(line[name] for name in names), {})[line["map"], line["at"]] = line
    rows = []
    for row, found in by_row.items():
        first = found[COLUMNS[0]]
        pairs = [str(first["pairs"])] if "pairs" in first else []
        rows.append([*(NAMES.get(name, name) for name in row), *pairs, *(gain(found[column][value]) for column in COLUMNS)])
    counted = ["pairs"] if any("pairs" in line for line in figures[key]) else []
    return table([*names, *counted, *(f"{MAPS[map_]}, {where} exit" for map_, where in COLUMNS)], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {
    "groups": partial(lines, key="groups", names=("property", "group"), value="gain"),
    "genres": partial(lines, key="genres", names=("set", "genre"), value="gain"),
    "correlations": partial(lines, key="correlations", names=("property",), value="correlation"),
}
