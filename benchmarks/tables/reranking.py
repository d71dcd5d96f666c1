"""The tables of reranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, number, signed, table

DEFAULT = {"depth": 20, "weight": 0.5}


def ways(figures: Any) -> str:
    """Return each way's hits before and after reranking at the default depth and weight."""
    rows = []
    for name, of_set in figures["hits"].items():
        cells = []
        for way, before in of_set["ways"].items():
            after = _record(figures, "plain", name, way, DEFAULT)
            if after is None:
                cells.append("–")
                continue
            shown = figure(after["score"], "**") if way == "both" else number(after["score"]["value"])
            cells.append(f"{number(before['value'])} → {shown} ({_range(after['gain'])})")
        rows.append([f"{NAMES[name]}, {of_set['queries']} queries", *cells])
    return table(["set", "words → reranked", "vectors → reranked", "both → reranked"], rows)


def prompts(figures: Any) -> str:
    """Return every method and prompt on the hits of both, by weight, and the MRR on TREC QA."""
    weights = list(dict.fromkeys(record["weight"] for record in figures["arms"]["plain"]))
    rows = []
    for name, of_set in figures["hits"].items():
        for arm in figures["arms"]:
            found = [_record(figures, arm, name, "both", {"depth": 20, "weight": weight}) for weight in weights]
            if any(found):
                cells = [f"{number(one['score']['value'])} ({_range(one['gain'])})" for one in found]
                before = number(of_set["ways"]["both"]["value"])
                rows.append([f"{NAMES[name]}, {of_set['queries']} queries", arm, before, *cells])
    heads = [f"{weight}, the default" if weight == DEFAULT["weight"] else str(weight) for weight in weights]
    return table(["set", "prompt or method", "hits", *heads], rows)


def depths(figures: Any) -> str:
    """Return the plain prompt on the hits of both, by depth and weight."""
    rows = []
    plain = [record for record in figures["arms"]["plain"] if record["way"] == "both"]
    for name in figures["hits"]:
        for depth in dict.fromkeys(record["depth"] for record in plain):
            of_depth = [record for record in plain if record["set"] == name and record["depth"] == depth]
            rows.append([NAMES[name], str(depth), *(number(record["score"]["value"]) for record in of_depth)])
    weights = dict.fromkeys(str(record["weight"]) for record in plain)
    return table(["set", "hits reranked", *weights], rows)


def trecqa(figures: Any) -> str:
    """Return the mean reciprocal rank of every method as the only ranking."""
    rows = [[arm, figure(one["mrr"])] for arm, one in figures["trecqa"].items()]
    questions = next(iter(figures["trecqa"].values()))["questions"]
    return table(["prompt or method", f"MRR, {questions} questions"], rows)


def _record(figures: Any, arm: str, name: str, way: str, at: Mapping[str, float]) -> Any:
    wanted = {"set": name, "way": way, **at}
    return next((one for one in figures["arms"][arm] if wanted.items() <= one.items()), None)


def _range(gain: Any) -> str:
    return f"{signed(gain['low'])} to {signed(gain['high'])}"


def all_tables(figures: Any) -> str:
    """Return all tables."""
    return "\n\n".join(
        [
            f"At the default weight, 0.5, the first 20 hits:\n\n{ways(figures)}",
            f"By prompt, method and weight, the first 20 hits of both:\n\n{prompts(figures)}",
            f"The plain prompt by number of hits and weight, both:\n\n{depths(figures)}",
            f"As the only ranking, TREC QA:\n\n{trecqa(figures)}",
        ]
    )


TABLES: Mapping[str, Callable[[Any], str]] = {"all": all_tables}
