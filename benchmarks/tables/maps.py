"""The table of what a map is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, number, table


def rows(figures: Any) -> str:
    """Return every view and map by set."""
    by_view = figures["rows"]
    sets = list(next(iter(by_view.values())))
    best = {name: max(of_view[name]["value"] for of_view in by_view.values()) for name in sets}
    cells = {
        view: [_cell(of_view[name]["value"], of_view[name]["value"] == best[name]) for name in sets]
        for view, of_view in by_view.items()
    }
    return table(["view", *(NAMES[name] for name in sets)], ([view, *of_view] for view, of_view in cells.items()))


def _cell(value: float, best: bool) -> str:
    return f"**{number(value)}**" if best else number(value)


TABLES: Mapping[str, Callable[[Any], str]] = {"rows": rows}
