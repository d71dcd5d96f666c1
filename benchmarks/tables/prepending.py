"""The tables of prepending under a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, gain, number, table


def sets(figures: Any) -> str:
    """Return every view by arm, with the gain over no prepending, for each set."""
    parts = []
    for name, by_view in figures["sets"].items():
        arms = list(next(iter(by_view.values())))
        rows = [[view, *(_cell(by_arm[arm]) for arm in arms)] for view, by_arm in by_view.items()]
        parts.append(f"{figures['model']}, {NAMES[name]}:\n\n{table(['read', *arms], rows)}")
    return "\n\n".join(parts)


def _cell(figure: Any) -> str:
    return number(figure["value"]) + ("" if figure["gain"] is None else f" ({gain(figure['gain'])})")


TABLES: Mapping[str, Callable[[Any], str]] = {"sets": sets}
