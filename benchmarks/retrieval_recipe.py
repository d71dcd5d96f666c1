"""Every exit and readout under a map, alone and in pairs, on several sets at once; how the shipped recipes were chosen.

    python benchmarks/retrieval_recipe.py python-faq cranfield xquad-de [--model M] [--recipe R] [--map within:256]

Prompts and prepending are those of the recipe. Each view is scored alone, then the best means with the best last tokens. A
star marks what beats BM25 in a hybrid search on every set by a paired interval that excludes zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Readout
from tp_retrieval.evaluation.datasets import read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives.objective import gain
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.types import Float32Array

SHARES_OF_MEAN = (0.5, 0.6, 0.7)
DENSE_SHARES = (0.4, 0.5, 0.6, 0.7)
PAIRED = 3

View = tuple[int | None, Readout]


class ScoredSet:
    """A dataset with the cosines of every view under a map."""

    def __init__(self, folder: Path, embedder: Embedder, map_: str) -> None:
        self.name = folder.name
        self.objective = RetrievalObjective(cut(read_retrieval(folder), embedder, 256), folded=False)
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


def line(name: str, sets: Sequence[ScoredSet], cosines: Sequence[Float32Array]) -> float:
    """Print a view's scores; return the mean dense one."""
    pairs = list(zip(sets, cosines, strict=True))
    dense = [100 * float(one.signal(of_set, 1.0).mean()) for one, of_set in pairs]
    parts = [f"{name:24} dense {' '.join(f'{score:5.1f}' for score in dense)} = {np.mean(dense):5.1f}"]
    for weight in DENSE_SHARES:
        signals = [one.signal(of_set, weight) for one, of_set in pairs]
        star = "*" if all(one.beats_words(signal) for one, signal in zip(sets, signals, strict=True)) else " "
        hybrid = [100 * float(signal.mean()) for signal in signals]
        parts.append(f"{weight}: {' '.join(f'{score:.1f}' for score in hybrid)} = {np.mean(hybrid):.1f}{star}")
    print(" | ".join(parts), flush=True)
    return float(np.mean(dense))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--recipe", default="retrieval")
    parser.add_argument("--map", default="within:256")
    options = parser.parse_args()
    embedder = Embedder.from_pretrained(options.model, recipe=options.recipe)
    sets = [ScoredSet(folder, embedder, options.map) for folder in options.folders]
    print(*(f"{one.name}: BM25 {100 * one.words.mean():.1f}" for one in sets), sep="\n")
    scores: dict[View, float] = {}
    for view in sets[0].cosines:
        scores[view] = line(f"{view[1]} {view[0]}", sets, [one.cosines[view] for one in sets])
    best = {
        readout: sorted((view for view in scores if view[1] == readout), key=lambda view: -scores[view])[:PAIRED]
        for readout in ("mean", "last")
    }
    for mean, last, share in product(best["mean"], best["last"], SHARES_OF_MEAN):
        mixed = [share * one.cosines[mean] + (1 - share) * one.cosines[last] for one in sets]
        line(f"mean {mean[0]} x {share} + last {last[0]}", sets, mixed)


if __name__ == "__main__":
    main()
