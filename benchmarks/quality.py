"""nDCG@10 of words, vectors and both, by each retrieval recipe, and of both reranked by the same model.

Documents are cut at 256 tokens, searched in an exact index by `evaluate_retrieval`, with the recipes' own weights. The
likelihood of the query orders the first 20 hits of both anew, for queries drawn once, since it takes seconds a query.
Intervals are paired 95% bootstrap intervals over queries.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from benchmarks.common import as_record, computed_in, drawn, load, read_set
from tp_retrieval import CachedEmbedder, Embedder, Reranker
from tp_retrieval.evaluation.evaluate import evaluate_retrieval

SETS = ("python-faq", "cranfield", "xquad-de", "xquad-en", "scifact", "adi", "limit-small")
RERANKED = ("python-faq", "cranfield", "xquad-de", "scifact")
RECIPES = ("retrieval-fast", "retrieval-balanced", "retrieval")
METRIC = "ndcg@10"
TRAINED = {
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "source": "measured once, at the project's start, on the same texts cut alike; no package index has its weights, so "
    "that this command does not measure it",
    "dense": {"python-faq": 83.1, "cranfield": 39.5},
    "best hybrid": {"python-faq": 83.2, "cranfield": 43.2},
}
"""A trained embedder's nDCG@10, to compare with."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--rerank", nargs="*", default=["retrieval-balanced"], help="recipes whose hits are")
    parser.add_argument("--reranked", type=int, default=60, help="so many of each set's queries, drawn once")
    parser.add_argument("--queries", type=int, help="so many of each set's, drawn once; by default all")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every set and recipe."""
    figures: dict[str, Any] = {}
    loaded = load(options, "retrieval", whole=bool(options.rerank))
    for recipe in options.recipes:
        embedder = loaded.with_recipe(recipe)
        for name in options.sets:
            of_set = figures.setdefault(name, {"recipes": {}})
            of_set |= _measured(options, name, recipe, embedder, of_set["recipes"])
    return computed_in(loaded) | {"sets": figures, "trained": TRAINED}


def _measured(
    options: argparse.Namespace, name: str, recipe: str, embedder: Embedder, recipes: dict[str, Any]
) -> dict[str, Any]:
    """Return what a set is, BM25 on it, and the recipes' figures with this one's."""
    data = drawn(read_set(options, name, embedder), options.queries)
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedEmbedder(embedder, f"{folder}/vectors.sqlite")
        scores = evaluate_retrieval(cached, data)
        record: dict[str, Any] = {way: as_record(scores.estimate(way, METRIC)) for way in ("dense", "hybrid")}
        record["over bm25"] = as_record(scores.gain("hybrid", "bm25", METRIC))
        if recipe in options.rerank and name in RERANKED:
            few = drawn(data, options.reranked)
            reranked = evaluate_retrieval(cached, few, reranker=Reranker(embedder))
            record["reranked"] = {
                "queries": len(few.queries),
                "before": as_record(reranked.estimate("hybrid", METRIC)),
                "after": as_record(reranked.estimate("reranked", METRIC)),
                "gain": as_record(reranked.gain("reranked", "hybrid", METRIC)),
            }
    print(name, recipe, record, flush=True)
    bm25 = as_record(scores.estimate("bm25", METRIC))
    sizes = {"documents": len(data.documents), "queries": len(data.queries)}
    return {**sizes, "bm25": bm25, "recipes": recipes | {recipe: record}}
