"""The table of reranking speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import number, table


def sides(figures: Any) -> str:
    """Return documents a second of every side, how much longer it takes, and the share of what is possible."""
    rows = [
        [
            record["side"],
            number(record["documents_per_second"]),
            f"{record['ratio']:.1f}×",
            f"{100 * record['share_of_matrix_product_rate']:.0f}%",
        ]
        for record in figures["records"]
    ]
    header = f"{figures['documents']} documents of {figures['tokens of a document']} tokens"
    return table([header, "documents a second", "time over ours", "of a plain matrix product's rate"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"sides": sides}
