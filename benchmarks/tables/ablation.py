"""The tables of ingredients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, gain, table

HEADER = (
    "arm",
    "last exit",
    "over the first",
    "over no prepending",
    "best exit",
    "",
    "over the first",
    "over no prepending",
)


def sets(figures: Any) -> str:
    """Return a table for every set: each arm at the last exit, and at its best one."""
    unit = "pairs" if figures["task"] == "sts" else "questions"
    parts = []
    for name, of_set in figures["sets"].items():
        rows: list[list[str]] = []
        for arm, of_arm in groupby(of_set["rows"], lambda row: row["arm"]):
            last, best = of_arm
            first = not rows
            over = "–" if first else gain(last["gain"])
            cells = [figure(last["score"]), over, _added(last), str(best["exit"]), figure(best["score"])]
            rows.append([arm, *cells, gain(best["gain"]), _added(best)])
        parts.append(f"{NAMES[name]}, {of_set['read']} of {of_set['items']} {unit}:\n\n{table(HEADER, rows)}")
    return "\n\n".join(parts)


def _added(row: Any) -> str:
    return "" if row["prepending"] is None else gain(row["prepending"])


TABLES: Mapping[str, Callable[[Any], str]] = {"sets": sets}
