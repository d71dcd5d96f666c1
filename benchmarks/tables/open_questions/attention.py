"""Tables of what prepending does to attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import figure, gain, number, table
from benchmarks.tables.open_questions.scopes import MAPS

TO_SLOT = ("early to slot", "late to slot", "last to slot")
EARLY, EVERY = 10, 5
ELSEWHERE = ("text to first", "entropy")


def blocks(figures: Any) -> str:
    """Return attention and what early tokens see, of the first arm: every early block, and every fifth of the others."""
    rows, first = [], figures["blocks"][0]["arm"]
    shown = [line for line in figures["blocks"] if line["block"] < EARLY or (line["block"] + 1) % EVERY == 0]
    for line in (line for line in shown if line["arm"] == first):
        cells = [f"{number(line['empty slot'][name])} → {number(line['on'][name])}" for name in TO_SLOT]
        cells += [" → ".join(number(line[arm][name]) for arm in ("plain", "empty slot", "on")) for name in ELSEWHERE]
        cells += [figure(line[key]) for key in ("early sees late", "early sees late, mask")]
        rows.append([line["arm"], str(line["block"]), *cells])
    header = [f"{name}, slot empty → rewritten" for name in TO_SLOT] + [
        f"{name}, without → slot empty → rewritten" for name in ELSEWHERE
    ]
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
