"""The table of requests computed together and each alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import number, table


def together(figures: Any) -> str:
    """Return the throughput and the latency of both servers."""
    rows = [
        [
            f"{name}",
            number(one["requests_per_second"]),
            number(1000 * one["p50"], 0),
            number(1000 * one["p99"], 0),
            f"{one['errors']:.0f}",
        ]
        for name, one in figures["medians"].items()
    ]
    header = f"{figures['clients']} clients, {figures['requests']} short questions, computed"
    return table([header, "requests a second", "median ms", "99% below, ms", "errors"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"together": together}
