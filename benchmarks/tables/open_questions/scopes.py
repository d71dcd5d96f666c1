"""Tables of prepending by scope and exit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, gain, number, table

MAPS = {"none": "raw", "center": "centred"}
"""The maps, as readers know them."""


def two_by_two(figures: Any) -> str:
    """Return prepending off and on, at the last exit and at the best, by prompt and map."""
    rows = []
    for prompt, of_prompt in figures["prompts"].items():
        for map_, found in of_prompt.items():
            for line in found["two by two"]:
                over = gain(line["gain"]) if "gain" in line else ""
                where = f"{line['at']}: {line['exit']} of {figures['blocks']}"
                rows.append([named(prompt), MAPS[map_], line["scope"], where, figure(line["score"]), over])
            for line in found["differences"]:
                rows.append([named(prompt), MAPS[map_], line["what"], line["at"], "", gain(line["gain"])])
    return table(["prompt", "map", "scope", "exit", "Spearman ×100", "gain"], rows)


def grid(figures: Any) -> str:
    """Return every scope of the pairs that are chosen on, without intervals."""
    rows = [
        [named(prompt), MAPS[map_], line["scope"], number(line["last"]), number(line["best"]), str(line["exit"])]
        for prompt, of_prompt in figures["prompts"].items()
        for map_, found in of_prompt.items()
        for line in found["grid"]
    ]
    return table(["prompt", "map", "scope", "last exit", "best exit", "which"], rows)


def named(prompt: str) -> str:
    """Return a prompt's name, with the set's as readers know it."""
    name, colon, rest = prompt.partition(": ")
    return f"{NAMES[name]}{colon}{rest}" if name in NAMES else prompt


TABLES: Mapping[str, Callable[[Any], str]] = {"two-by-two": two_by_two, "grid": grid}
