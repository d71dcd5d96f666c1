"""The table of what a model is and says before and after prepending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import table


def before_and_after(figures: Any) -> str:
    """Return what was compared, and one of the texts."""
    same = {True: "equal", False: "**differs**"}
    equal, (before, after) = figures["equal"], figures["perplexity"]
    texts = (_cell(texts[0]) for texts in figures["generated"])
    rows = [
        [f"{figures['tensors']} tensors of weights", "", "", same[equal["weights"]]],
        ["where they lie in memory", "", "", same[equal["memory"]]],
        [f"perplexity of {figures['texts']} texts", str(before), str(after), same[equal["sums"]]],
        ["greedy text", *texts, same[equal["tokens"]]],
        ["hooks left on blocks", "", str(figures["hooks left"]), ""],
    ]
    return table(["what", "before", "after prepending", "compared"], rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


TABLES: Mapping[str, Callable[[Any], str]] = {"before-and-after": before_and_after}
