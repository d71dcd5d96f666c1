"""The tables of `Hit.relevance`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, number, table


def hybrid(figures: Any) -> str:
    """Return the hits of hybrid searches in whole sets by recipe and set, then all hits together by mode and size."""
    records = figures["records"]
    rows = [
        [
            f"`{one['recipe']}`",
            NAMES[one["set"]],
            f"{one['above']:,}",
            _share(one["relevant"]),
            _share(one["found"]),
            _of(one["foreign above"], one["foreign"]),
        ]
        for one in records
        if one["mode"] == "hybrid" and one["documents"] == "all"
    ]
    header = ["recipe", "set", "hits above 0.5", "% of them relevant", "% of the relevant hits that are above 0.5"]
    parts = [table([*header, "% of the hits for other sets' questions that are"], rows)]
    sizes = list(dict.fromkeys(one["documents"] for one in records))
    together = []
    for mode in dict.fromkeys(one["mode"] for one in records):
        of_size = {size: [one for one in records if (one["mode"], one["documents"]) == (mode, size)] for size in sizes}
        relevant = [_of(_sum(of, "above and relevant"), _sum(of, "above")) for of in of_size.values()]
        foreign = [_of(_sum(of, "foreign above"), _sum(of, "foreign")) for of in of_size.values()]
        together.append([mode, *relevant, *foreign])
    named = ["whole sets" if size == "all" else f"parts of {size}" for size in sizes]
    header = ["search", *(f"% relevant above 0.5, {name}" for name in named)]
    parts.append(table([*header, *(f"% of other sets' above 0.5, {name}" for name in named)], together))
    return "\n\n".join([parts[0], "All hits together, by the way of searching and the number of documents:", parts[1]])


def _share(estimate: Any) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate['value'], 0)} [{number(estimate['low'], 0)}, {number(estimate['high'], 0)}]"


def _sum(records: list[Any], name: str) -> int:
    return sum(record[name] for record in records)


def _of(part: int, whole: int) -> str:
    return number(100 * part / whole) if whole else "–"


TABLES: Mapping[str, Callable[[Any], str]] = {"hybrid": hybrid}
