"""The table of what kinds and precisions of an index cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, number, table


def ndcg(figures: Any) -> str:
    """Return nDCG@10 of dense and hybrid search by kind, precision and set."""
    records = figures["records"]
    sets = list(dict.fromkeys(record["set"] for record in records))
    variants = dict.fromkeys((record["kind"], record["raw"]) for record in records)
    found = {(one["kind"], one["raw"], one["set"]): one for one in records}
    rows = []
    for kind, raw in variants:
        scores = [found[kind, raw, name] for name in sets]
        cells = [f"{number(one['dense ndcg@10'], 2)} / {number(one['hybrid ndcg@10'], 2)}" for one in scores]
        rows.append([f"{'exact' if kind == 'flat' else kind}, {raw}", *cells])
    return table(["dense / hybrid", *(NAMES[name] for name in sets)], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"ndcg": ndcg}
