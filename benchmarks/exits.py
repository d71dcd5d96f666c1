"""Every exit and readout under a map, alone and in pairs, on several sets at once; how the shipped recipes were chosen.

Prompts and prepending are those of the recipe `retrieval`. Each view is scored alone, then the best means with the best
last tokens. A view is surely above BM25 at a share of the vectors if its hybrid search is so on each set, by paired
intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks.common import computed_in, load, read_set
from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Readout
from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives.objective import gain
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.types import Float32Array

SETS = ("python-faq", "cranfield", "xquad-de")
SHARES_OF_MEAN = (0.5, 0.6, 0.7)
DENSE_SHARES = (0.4, 0.5, 0.6, 0.7)
PAIRED = 3

View = tuple[int | None, Readout]


class ScoredSet:
    """A dataset with the cosines of every view under a map."""

    def __init__(self, data: RetrievalSet, embedder: Embedder, map_: str) -> None:
        self.name = data.name
        self.objective = RetrievalObjective(data, folded=False)
        recipe, objective, sweep = embedder.recipe, self.objective, Sweep(embedder)
        query, document = recipe.query[0].source, recipe.document[0].source
        queries = sweep.states(query, recipe.prepend, objective.queries)
        documents = sweep.states(document, recipe.prepend, objective.documents, query=query, sampled=objective.sampled)
        readouts: tuple[Readout, ...] = ("mean", "last")
        self.cosines: dict[View, Float32Array] = {
            (exit_, readout): objective.compare(
                queries.view(exit_, readout),
                documents.view(exit_, readout),
                map_,
                documents.stretches_of(exit_, readout) if map_.startswith("within") else None,
            )
            for exit_, readout in product(sweep.exits, readouts)
            if (exit_, readout) != (0, "last")
        }
        sweep.close()
        self.words = self.signal(np.zeros_like(self.cosines[0, "mean"]), 0.0)

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return nDCG@10 of every query."""
        return self.objective.signal(cosines, dense_weight)

    def beats_words(self, signal: Values) -> bool:
        """Return whether the gain over BM25 has an interval above zero."""
        if signal.mean() <= self.words.mean():
            return False
        return gain(self.objective, signal, self.words, np.arange(self.objective.count)).low > 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--map", default="within:256")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of every view alone and of the best pairs: vectors alone, and both by the share of vectors."""
    embedder = load(options, "retrieval", whole=True)
    sets = [ScoredSet(read_set(options, name, embedder), embedder, options.map) for name in options.sets]
    views: list[View] = sorted(sets[0].cosines, key=lambda view: view[1] != "mean")
    alone = [scores(sets, [one.cosines[view] for one in sets]) | {"view": view} for view in views]
    best = {
        readout: sorted((one for one in alone if one["view"][1] == readout), key=lambda one: -one["dense mean"])[:PAIRED]
        for readout in ("mean", "last")
    }
    pairs = []
    for mean, last, share in product(best["mean"], best["last"], SHARES_OF_MEAN):
        mixed = [share * one.cosines[mean["view"]] + (1 - share) * one.cosines[last["view"]] for one in sets]
        pairs.append(scores(sets, mixed) | {"mean": mean["view"][0], "last": last["view"][0], "share": share})
    words = {one.name: round(100 * float(one.words.mean()), 2) for one in sets}
    return computed_in(embedder) | {"map": options.map, "bm25": words, "alone": alone, "pairs": pairs}


def scores(sets: Sequence[ScoredSet], cosines: Sequence[Float32Array]) -> dict[str, Any]:
    """Return nDCG@10 of vectors alone by set and in the mean, and of both by share."""
    of_sets = list(zip(sets, cosines, strict=True))
    dense = {one.name: round(100 * float(one.signal(of_set, 1.0).mean()), 2) for one, of_set in of_sets}
    hybrid = {}
    for weight in DENSE_SHARES:
        signals = [one.signal(of_set, weight) for one, of_set in of_sets]
        sure = all(one.beats_words(signal) for one, signal in zip(sets, signals, strict=True))
        hybrid[str(weight)] = {"mean": 100 * float(np.mean([signal.mean() for signal in signals])), "sure": sure}
    return {"dense": dense, "dense mean": float(np.mean(list(dense.values()))), "hybrid": hybrid}
