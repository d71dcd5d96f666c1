"""The tables of exits and of pairs of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, number, table

MEANS = (0, 1, 2, 4, 8, 16, 24)
LAST = 6
BEST = 12


def exits(figures: Any) -> str:
    """Return the means after some blocks and the last tokens after the last ones, alone, then the best pairs."""
    sets, shares = list(figures["bm25"]), list(figures["alone"][0]["hybrid"])
    deepest = max(one["view"][0] or 0 for one in figures["alone"])
    rows = []
    for one in figures["alone"]:
        exit_, readout = one["view"]
        shown = (*MEANS, deepest, None) if readout == "mean" else (*range(deepest - LAST, deepest + 1), None)
        if exit_ in shown:
            rows.append([readout, _named(exit_), *_cells(one, sets)])
    header = [*(NAMES[name] for name in sets), "mean, dense", *(f"mean, hybrid at {share}" for share in shares)]
    alone = table(["readout", "exit", *header], rows)
    best = sorted(figures["pairs"], key=lambda one: -max(of_share["mean"] for of_share in one["hybrid"].values()))[:BEST]
    named = [[f"{_named(one['mean'])} at {one['share']}, {_named(one['last'])}", *_cells(one, sets)] for one in best]
    pairs = table(["mean after, last token after", *header], named)
    words = ", ".join(f"{NAMES[name]} {number(value)}" for name, value in figures["bm25"].items())
    return f"{alone}\n\nThe best pairs; a star: surely above BM25 ({words}) on every set:\n\n{pairs}"


def _named(exit_: int | None) -> str:
    return "final norm" if exit_ is None else str(exit_)


def _cells(one: Any, sets: list[str]) -> list[str]:
    hybrid = [number(of_share["mean"]) + "\\*" * of_share["sure"] for of_share in one["hybrid"].values()]
    return [*(number(one["dense"][name]) for name in sets), number(one["dense mean"]), *hybrid]


TABLES: Mapping[str, Callable[[Any], str]] = {"exits": exits}
