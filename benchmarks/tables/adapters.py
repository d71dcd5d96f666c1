"""The table of what the frameworks' adapters cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import signed, table


def seconds(figures: Any) -> str:
    """Return the seconds of every side, and how much they are above the engine's."""
    rows = []
    for what, spent in figures["seconds"].items():
        engine = next(iter(spent.values()))
        for side, took in spent.items():
            over = "" if took == engine or what.endswith("at hand") else f"{signed(100 * (took / engine - 1))}%"
            rows.append([what, side, f"{took:.2f}", over])
    return table(["what", "side", "seconds", "over the engine"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"seconds": seconds}
