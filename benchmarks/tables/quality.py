"""Tables of search quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.markdown import NAMES, figure, gain, number, table

RECIPES = {
    "retrieval-fast": "`retrieval-fast`",
    "retrieval-balanced": "`retrieval-balanced`, the default",
    "retrieval": "`retrieval`",
}
FRONT = ("python-faq", "cranfield", "xquad-de", "scifact")


def sets(figures: Any) -> str:
    """Return every set by recipe: vectors, and both with their interval."""
    recipes = _measured(figures)
    with_trained = figures["trained"]["dense"].keys() & figures["sets"].keys()
    if figures["model"].startswith("gemma"):
        with_trained = set()
    rows = []
    for name, of_set in figures["sets"].items():
        best = max(of_set["bm25"]["value"], *(of_set["recipes"][recipe]["hybrid"]["value"] for recipe in recipes))
        size = f"{NAMES[name]}, {of_set['documents']:,} documents, {of_set['queries']:,} queries"
        cells = [figure(of_set["bm25"], "**" * (of_set["bm25"]["value"] == best))]
        for recipe in recipes:
            dense, hybrid = (of_set["recipes"][recipe][way] for way in ("dense", "hybrid"))
            cells.append(f"{number(dense['value'])}, {figure(hybrid, '**' * (hybrid['value'] == best))}")
        trained = figures["trained"]["dense"].get(name)
        rows.append([size, *cells, *([number(trained) if trained else "–"] if with_trained else [])])
    named = [f"{RECIPES[recipe]}: vectors, both" for recipe in recipes]
    return table(["set", "words (BM25)", *named, *(["all-MiniLM-L6-v2 (trained): vectors"] if with_trained else [])], rows)


def _measured(figures: Any) -> list[str]:
    """Return the recipes of which every set has figures."""
    return [recipe for recipe in RECIPES if all(recipe in of_set["recipes"] for of_set in figures["sets"].values())]


def gains(figures: Any) -> str:
    """Return the gain of both over BM25, by set and recipe."""
    recipes = _measured(figures)
    rows = [
        [NAMES[name], *(gain(of_set["recipes"][recipe]["over bm25"]) for recipe in recipes)]
        for name, of_set in figures["sets"].items()
    ]
    return table(["set", *(f"`{recipe}`" for recipe in recipes)], rows)


def reranked(figures: Any) -> str:
    """Return both, both reranked and the gain, by set, of the recipes whose hits were reranked."""
    rows = []
    for name, of_set in figures["sets"].items():
        for recipe, scores in of_set["recipes"].items():
            if "reranked" in scores:
                few = scores["reranked"]
                cells = [figure(few["before"]), figure(few["after"]), gain(few["gain"])]
                rows.append([f"{NAMES[name]}, {few['queries']:,} queries", f"`{recipe}`", *cells])
    return table(["set", "recipe", "both", "reranked", "gain"], rows)


def front(figures: Any) -> str:
    """Return five rows for a first look: BM25, a trained embedder, the fast recipe, the default, the default reranked."""
    trained = figures["trained"]["best hybrid"]
    columns = {name: figures["sets"][name] for name in FRONT}
    default = [of_set["recipes"]["retrieval-balanced"] for of_set in columns.values()]
    few = [scores["reranked"] for scores in default]
    rows = [
        ["words (BM25)", *(number(of_set["bm25"]["value"]) for of_set in columns.values())],
        [
            "all-MiniLM-L6-v2, trained, with BM25 at its best weight",
            *(number(trained[name]) if name in trained else "–" for name in columns),
        ],
        [
            "`retrieval-fast`, which runs 1 of 30 layers, with BM25",
            *(number(of_set["recipes"]["retrieval-fast"]["hybrid"]["value"]) for of_set in columns.values()),
        ],
        ["`retrieval-balanced`, the default, with BM25", *(number(scores["hybrid"]["value"]) for scores in default)],
        [
            f"the default, on {few[0]['queries']} queries of each set → reranked by the same model",
            *(f"{number(one['before']['value'])} → {number(one['after']['value'])}" for one in few),
        ],
    ]
    return table(["nDCG@10", *(NAMES[name] for name in columns)], rows)


def all_tables(figures: Any) -> str:
    """Return all tables but the one for a first look."""
    parts = [sets(figures), f"Both together over BM25:\n\n{gains(figures)}"]
    if any("reranked" in scores for of_set in figures["sets"].values() for scores in of_set["recipes"].values()):
        parts.append(f"The first 20 hits of both, reranked by the likelihood of the query:\n\n{reranked(figures)}")
    return "\n\n".join(parts)


TABLES: Mapping[str, Callable[[Any], str]] = {"all": all_tables, "front": front}
