"""The table of a server under load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import number, table


def phases(figures: Any) -> str:
    """Return the latency of every route by phase, and the server's memory."""
    rows = [
        [phase, route, f"{one['requests']:,}", number(one["p50"], 0), number(one["p99"], 0), f"{one['errors']}"]
        for phase, routes in figures["phases"].items()
        for route, one in routes.items()
    ]
    memory = " and ".join(number(value, 0) for value in figures["memory, MB"].values())
    ratio = number(figures["p99 beside adding over alone"], 2)
    text = (
        f"p99 of searches beside adding is {ratio} times that alone. Memory in the second and the last third: {memory} MB."
    )
    return f"{table(['clients', 'route', 'requests', 'median ms', '99% below, ms', 'errors'], rows)}\n\n{text}"


TABLES: Mapping[str, Callable[[Any], str]] = {"phases": phases}
