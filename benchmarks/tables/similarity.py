"""The table of similarity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, gain, table

CHOSEN_ON = ("STSB-dev", "SICKR-trial")


def sets(figures: Any) -> str:
    """Return PromptEOL, the recipe without maps, the recipe, and its gain, by set."""
    rows = []
    for name, of_set in figures["sets"].items():
        said = "chosen on" if name in CHOSEN_ON else "had no say"
        cells = [figure(of_set["prompteol"]), figure(of_set["without maps"]), figure(of_set["recipe"], "**")]
        rows.append([f"{NAMES[name]} ({said})", f"{of_set['pairs']:,}", *cells, gain(of_set["gain"])])
    return table(["set", "pairs", "PromptEOL, last exit", "this recipe without its maps", "this recipe", "gain"], rows)


TABLES: Mapping[str, Callable[[Any], str]] = {"sets": sets}
