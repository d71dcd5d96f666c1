"""The table of speed beside sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from benchmarks.tables.markdown import number, table

DEFAULT = "sentence-transformers float32"


def texts(figures: Any) -> str:
    """Return texts a second of every side, the ratio over its default, and the share of what is possible."""
    rows = []
    for (prompt, kind), records in groupby(figures["records"], lambda one: (one["prompt"], one["texts"])):
        by_side = {record["side"]: record for record in records}
        ours = by_side["tp_retrieval float32"]
        rates = [by_side[side]["texts_per_second"] for side in (DEFAULT, "sentence-transformers bfloat16")]
        ratio = ours["ratio_to_sentence_transformers_default"]
        share = f"{100 * ours['share_of_matrix_product_rate']:.0f}%"
        first, *others = (number(rate) for rate in (ours["texts_per_second"], *rates))
        rows.append([f"{prompt}, {kind}", first, others[0], f"{ratio:.1f}×", others[1], share])
    header = ["prompt, texts a second", "this, float32", "sentence-transformers, float32 (its default)", "ratio"]
    return table([*header, "sentence-transformers, bfloat16", "of a plain matrix product's rate"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"texts": texts}
