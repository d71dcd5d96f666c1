"""Choose the maps and shares of a retrieval recipe's two views on several sets at once; how the shipped one was chosen.

    python benchmarks/retrieval_recipe.py python-faq cranfield [--model M] [--first 30 --second 1]

Of all pairs of maps, shares of the views and shares of the dense score, those are kept whose hybrid search beats BM25 on
every set by a paired interval that excludes zero. The best of them has the highest mean of hybrid and dense nDCG@10.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Readout
from tp_retrieval.evaluation.datasets import read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.objectives.objective import gain
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import Sweep

MAPS = ("whiten:96", "whiten:128", "whiten:192", "whiten:256")
VIEW_SHARES = (0.4, 0.5, 0.6)
DENSE_SHARES = (0.25, 0.3, 0.35, 0.4, 0.5)


def main() -> None:
    """Print the best choices, and what each scores on each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--first", type=int, default=30, help="exit of the last token's view")
    parser.add_argument("--second", type=int, default=1, help="exit of the mean's view")
    options = parser.parse_args()
    embedder = Embedder.from_pretrained(options.model, recipe="retrieval")
    recipe, sets = embedder.recipe, []
    views: list[tuple[int, Readout]] = [(options.first, "last"), (options.second, "mean")]
    for folder in options.folders:
        objective = RetrievalObjective(cut(read_retrieval(folder), embedder, 256), folded=False)
        sweep = Sweep(embedder)
        queries = sweep.states(recipe.query[0].source, recipe.prepend, objective.queries)
        documents = sweep.states(recipe.document[0].source, recipe.prepend, objective.documents)
        cosines = {
            (exit_, readout, map_): objective.compare(queries.view(exit_, readout), documents.view(exit_, readout), map_)
            for exit_, readout in views
            for map_ in MAPS
        }
        sweep.close()
        words = objective.signal(np.zeros_like(next(iter(cosines.values()))), 0.0)
        sets.append((folder.name, objective, cosines, words))
    print(*(f"{name}: BM25 {100 * words.mean():.1f}" for name, _, _, words in sets), sep="\n")

    choices = []
    for one, other, share in product(MAPS, MAPS, VIEW_SHARES):
        mixed = [
            share * cosines[options.first, "last", one] + (1 - share) * cosines[options.second, "mean", other]
            for _, _, cosines, _ in sets
        ]
        dense = [100 * float(s[1].signal(c, 1.0).mean()) for s, c in zip(sets, mixed, strict=True)]
        for weight in DENSE_SHARES:
            signals = [s[1].signal(c, weight) for s, c in zip(sets, mixed, strict=True)]
            gains = [gain(s[1], g, s[3], np.arange(s[1].count)) for s, g in zip(sets, signals, strict=True)]
            if all(one_gain.low > 0 for one_gain in gains):
                hybrid = [100 * float(signal.mean()) for signal in signals]
                choices.append((float(np.mean(dense + hybrid)), one, other, share, weight, dense, hybrid, gains))
    for score, one, other, share, weight, dense, hybrid, gains in sorted(choices, key=lambda row: -row[0])[:8]:
        print(f"{score:.2f}  last {one} x {share}, mean {other} x {1 - share:.1f}, dense share {weight}")
        for (name, *_), d, h, g in zip(sets, dense, hybrid, gains, strict=True):
            print(f"       {name}: dense {d:.1f}, hybrid {h:.1f}, over BM25 {g}")


if __name__ == "__main__":
    main()
