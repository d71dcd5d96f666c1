"""The table of the index beside FAISS alone, as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.tables.markdown import number, table


def sides(figures: Any) -> str:
    """Return a column for this index and one for FAISS alone, by number of rows."""
    records = figures["records"]
    header = [""]
    for record in records:
        header += [f"{record['rows']:,} rows, {record['kind']}", "FAISS alone"]
    columns = [dict(column(figures, record[side])) for record in records for side in ("tp_retrieval", "faiss")]
    return table(header, [[name, *(of_side.get(name, "") for of_side in columns)] for name in columns[0]])


def column(figures: Any, side: Any) -> Iterator[tuple[str, str]]:
    """Yield the cells of a side."""
    yield "search, median ms", short(side["None"]["p50_ms"])
    yield "search, 99% of them below, ms", short(side["None"]["p99_ms"])
    yield "recall of the ten nearest", f"{side['None']['recall']:.3f}"
    for kept, share in figures["kept"].items():
        yield f"filter that keeps {100 * share:g}%, median ms", short(side[kept]["p50_ms"])
    firsts = [side[kept]["first_ms"] for kept in figures["kept"] if "first_ms" in side[kept]]
    if firsts:
        yield "the first search with each filter, ms", ", ".join(map(short, firsts))
    yield "rows added a second", short(side["add_rate"])
    if side.get("build", 0) > 0.01:
        yield "until codes are there, s more", short(side["build"])
    yield "open, s", short(side["open"])
    yield "10,000 queries at once, queries/s", short(side["many"])
    if side.get("duplicates"):
        yield "all compared with all, s; beside it numpy's products", short(side["duplicates"])
    yield "peak memory while adding, MB", short(side["peak_mb"])
    yield "on disk, MB", short(side["disk_mb"])


def short(value: float) -> str:
    """Return three digits of a number, and all digits of those above."""
    return number(value, 0) if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"


TABLES: Mapping[str, Callable[[Any], str]] = {"sides": sides}
