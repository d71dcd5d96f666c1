"""Tables of prepending beside a bidirectional mask in the same blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, gain, table
from benchmarks.tables.open_questions.scopes import two_by_two


def retrieval(figures: Any) -> str:
    """Return every arm on every set."""
    rows = []
    for name, of_set in figures["retrieval"].items():
        for line in of_set:
            gains = [gain(line[key]) if key in line else "" for key in ("gain", "over the mask")]
            where = f"{line['at']}: {line['exit']} of {figures['blocks']}"
            rows.append([NAMES[name], line["arm"], where, figure(line["score"]), *gains])
    return table(["set", "arm", "exit", "nDCG@10", "over off", "over the mask in the same blocks"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"similarity": two_by_two, "retrieval": retrieval}
