"""Tables of search quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, Figure, figure, gain, number, table

RECIPES = ("retrieval-fast", "retrieval-balanced", "retrieval")
FRONT = ("python-faq", "cranfield", "xquad-de", "scifact")


def sets(figures: Any) -> str:
    """Return every set by recipe: vectors, and both with their interval."""
    header = ["set", "words (BM25)", "`retrieval-fast`: vectors, both", "`retrieval-balanced`, the default", "`retrieval`"]
    with_trained = figures["trained"]["dense"].keys() & figures["sets"].keys()
    if figures["model"].startswith("gemma"):
        with_trained = set()
    rows = []
    for name, of_set in figures["sets"].items():
        best = max(of_set["bm25"]["value"], *(of_set["recipes"][recipe]["hybrid"]["value"] for recipe in RECIPES))
        size = f"{NAMES[name]}, {of_set['documents']:,} documents, {of_set['queries']:,} queries"
        cells = [figure(of_set["bm25"], "**" * (of_set["bm25"]["value"] == best))]
        for recipe in RECIPES:
            dense, hybrid = (of_set["recipes"][recipe][way] for way in ("dense", "hybrid"))
            cells.append(f"{number(dense['value'])}, {figure(hybrid, '**' * (hybrid['value'] == best))}")
        trained = figures["trained"]["dense"].get(name)
        rows.append([size, *cells, *([number(trained) if trained else "–"] if with_trained else [])])
    return table([*header, *(["all-MiniLM-L6-v2 (trained): vectors"] if with_trained else [])], rows)


def gains(figures: Any) -> str:
    """Return the gain of both over BM25, by set and recipe."""
    rows = [
        [NAMES[name], *(gain(of_set["recipes"][recipe]["over bm25"]) for recipe in RECIPES)]
        for name, of_set in figures["sets"].items()
    ]
    return table(["set", *(f"`{recipe}`" for recipe in RECIPES)], rows)


def reranked(figures: Any) -> str:
    """Return both, both reranked and the gain, by set, of the recipes whose hits were reranked."""
    rows = []
    for name, of_set in figures["sets"].items():
        for recipe, scores in of_set["recipes"].items():
            if "reranked" in scores:
                cells = [figure(scores["hybrid"]), figure(scores["reranked"]), gain(scores["over hybrid"])]
                rows.append([f"{NAMES[name]}, {of_set['queries']:,} queries", f"`{recipe}`", *cells])
    return table(["set", "recipe", "both", "reranked", "gain"], rows)


def front(figures: Any) -> str:
    """Return five rows for a first look: BM25, a trained embedder, the fast recipe, the default, the default reranked."""
    trained = figures["trained"]["best hybrid"]
    ways: dict[str, Callable[[str, Any], Figure | None]] = {
        "words (BM25)": lambda name, of_set: of_set["bm25"],
        "all-MiniLM-L6-v2, trained, with BM25 at its best weight": lambda name, of_set: _alone(trained.get(name)),
        "`retrieval-fast`, with BM25": lambda name, of_set: of_set["recipes"]["retrieval-fast"]["hybrid"],
        "`retrieval-balanced`, the default, with BM25": lambda name, of_set: of_set["recipes"]["retrieval-balanced"][
            "hybrid"
        ],
        "the default, reranked by the same model": lambda name, of_set: of_set["recipes"]["retrieval-balanced"]["reranked"],
    }
    columns = {name: figures["sets"][name] for name in FRONT}
    rows = []
    for way, read in ways.items():
        found = {name: read(name, of_set) for name, of_set in columns.items()}
        rows.append([way, *("–" if value is None else number(value["value"]) for value in found.values())])
    return table(["nDCG@10", *(NAMES[name] for name in columns)], rows)


def _alone(value: float | None) -> Figure | None:
    return None if value is None else {"value": value}


def all_tables(figures: Any) -> str:
    """Return all tables but the one for a first look."""
    parts = [sets(figures), f"Both together over BM25:\n\n{gains(figures)}"]
    if any("reranked" in scores for of_set in figures["sets"].values() for scores in of_set["recipes"].values()):
        parts.append(f"The first 20 hits of both, reranked by the likelihood of the query:\n\n{reranked(figures)}")
    return "\n\n".join(parts)


TABLES: Mapping[str, Callable[[Any], str]] = {"all": all_tables, "front": front}
