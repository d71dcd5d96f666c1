"""Prepending under a map: every kind at the early exits and the last one, dense nDCG@10 of the mean, on several sets.

    python benchmarks/prepending.py python-faq cranfield [--model M] [--map within:256]

The plain pair of prompts, without a demonstration. Beside each figure is its gain over the same exit without prepending,
with its paired 95% interval. Prints a table in Markdown for each set.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Prepend, Readout
from tp_retrieval.evaluation.datasets import read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives.objective import gain
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import slotted

QUERY, DOCUMENT = 'This question : "{text}" means in one word:"', 'This passage : "{text}" means in one word:"'
ARMS: Mapping[str, Prepend | None] = {
    "none": None,
    "tp 1..2": Prepend("tp", 1, 2),
    "tp 1..4": Prepend("tp", 1, 4),
    "tp-mean 1..2": Prepend("tp-mean", 1, 2),
    "htp 1..2": Prepend("htp", 1, 2),
    "echo": Prepend("echo"),
}
EARLY = range(1, 9)


def signals(embedder: Embedder, objective: RetrievalObjective, prepend: Prepend | None, map_: str) -> dict[str, Values]:
    """Return nDCG@10 of every query by exit, for the means of the text's tokens and for the last token of all blocks."""
    query, document = (text if prepend is None else slotted(text) for text in (QUERY, DOCUMENT))
    sweep = Sweep(embedder)
    queries = sweep.states(query, prepend, objective.queries)
    documents = sweep.states(document, prepend, objective.documents, query=query, sampled=objective.sampled)
    blocks = embedder.backbone.n_blocks
    views: dict[str, tuple[int | None, Readout]] = {f"mean after {exit_}": (exit_, "mean") for exit_ in [*EARLY, blocks]}
    views["last token, final norm"] = (None, "last")
    found = {}
    for name, (exit_, readout) in views.items():
        cosines = objective.compare(
            queries.view(exit_, readout), documents.view(exit_, readout), map_, documents.stretches_of(exit_, readout)
        )
        found[name] = objective.signal(cosines, 1.0)
    sweep.close()
    return found


def cell(objective: RetrievalObjective, signal: Values, plain: Values) -> str:
    """Return a mean in percent, and its gain over another signal where it is another."""
    mean = f"{100 * signal.mean():.1f}"
    if signal is plain:
        return mean
    over = gain(objective, signal, plain, np.arange(objective.count))
    return f"{mean} ({over.value:+.1f} [{over.low:+.1f}, {over.high:+.1f}])".replace("-", "−")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--map", default="within:256")
    options = parser.parse_args()
    embedder = Embedder.from_pretrained(options.model, recipe="retrieval")
    for folder in options.folders:
        objective = RetrievalObjective(cut(read_retrieval(folder), embedder, 256), folded=False)
        by_arm = {name: signals(embedder, objective, prepend, options.map) for name, prepend in ARMS.items()}
        print(f"\n{folder.name}, {Path(embedder.provenance.model).name}, {options.map}\n")
        print("| read | " + " | ".join(by_arm) + " |")
        print("|---" * (len(by_arm) + 1) + "|")
        for view, plain in by_arm["none"].items():
            cells = [cell(objective, by_view[view], plain) for by_view in by_arm.values()]
            print(f"| {view} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
