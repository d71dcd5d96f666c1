"""Tables of what prepending does to attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import figure, gain, number, table
from benchmarks.tables.open_questions.scopes import MAPS

TO_SLOT = ("early to slot", "late to slot", "last to slot")
ELSEWHERE = ("text to first", "entropy")


def blocks(figures: Any) -> str:
    """Return attention and what early tokens see, by arm and block."""
    rows = []
    for line in figures["blocks"]:
        cells = [f"{number(line['empty slot'][name])} → {number(line['on'][name])}" for name in TO_SLOT]
        cells += [
            f"{number(line['plain'][name])} → {number(line['on'][name])}: {gain(line[f'change of {name}'])}"
            for name in ELSEWHERE
        ]
        cells += [figure(line[key]) for key in ("early sees late", "early sees late, mask")]
        rows.append([line["arm"], str(line["block"]), *cells])
    header = [f"{name}, slot empty → rewritten" for name in TO_SLOT] + [f"{name}, without → with" for name in ELSEWHERE]
    return table(["arm", "block", *header, "early sees late", "with a bidirectional mask"], rows)


def gains(figures: Any) -> str:
    """Return what prepending is worth on the pairs that were looked at."""
    rows = [[line["arm"], MAPS[line["map"]], figure(line["off"]), gain(line["gain"])] for line in figures["gain"]]
    return table(["arm", "map", "without", "gain"], rows)


def correlations(figures: Any) -> str:
    """Return the rank correlation of a pair's gain with each measure of its texts."""
    rows = [
        [line["arm"], line["property"], MAPS[line["map"]], gain(line["correlation"])] for line in figures["correlations"]
    ]
    return table(["arm", "measure", "map", "correlation ×100 with the gain of a pair"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"blocks": blocks, "gains": gains, "correlations": correlations}
