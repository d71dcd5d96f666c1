"""What a map is worth: nDCG@10 of vectors alone, for views of one pass with the prompts of the recipe `retrieval`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import as_record, computed_in, load, read_set
from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Readout, View
from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.evaluation.metrics import bootstrap, mean_of
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import States, Sweep
from tp_retrieval.types import Float32Array

SETS = ("python-faq", "cranfield", "scifact")
LAST: Readout = "last"
ROWS: dict[str, Sequence[View]] = {
    "last token, all blocks and final norm, as it is": [View(None, LAST, "none")],
    "the same, `whiten:256`": [View(None, LAST, "whiten:256")],
    "last token after block 28, centred": [View(28, LAST, "center")],
    "last token after block 30, `whiten:256`": [View(30, LAST, "whiten:256")],
    "mean of the text's tokens after block 1, `whiten:256`": [View(1, "mean", "whiten:256")],
    "the same, `within:256` (`retrieval-fast`)": [View(1, "mean", "within:256")],
    "last token after block 30 and mean after block 1, `whiten:256`, half each": [
        View(30, LAST, "whiten:256", 0.5),
        View(1, "mean", "whiten:256", 0.5),
    ],
    "the same two, only centred": [View(30, LAST, "center", 0.5), View(1, "mean", "center", 0.5)],
    "mean after block 1 (0.6) and last token after block 29 (0.4), `within:256` (`retrieval`)": [
        View(1, "mean", "within:256", 0.6),
        View(29, LAST, "within:256", 0.4),
    ],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return nDCG@10 of every row on every set."""
    embedder = load(options, "retrieval", whole=True)
    figures: dict[str, Any] = {name: {} for name in ROWS}
    for name in options.sets:
        for row, figure in scores(embedder, read_set(options, name, embedder)).items():
            figures[row][name] = figure
            print(name, row, figure, flush=True)
    return computed_in(embedder) | {"rows": figures}


def scores(embedder: Embedder, data: RetrievalSet) -> dict[str, dict[str, float]]:
    """Return nDCG@10 of every row, all from one pass over the texts."""
    objective, sweep, recipe = RetrievalObjective(data, folded=False), Sweep(embedder), embedder.recipe
    query, document = recipe.query[0].source, recipe.document[0].source
    queries = sweep.states(query, recipe.prepend, objective.queries)
    documents = sweep.states(document, recipe.prepend, objective.documents, query=query, sampled=objective.sampled)
    found = {}
    for name, views in ROWS.items():
        signal = objective.signal(mixed(objective, queries, documents, views), 1.0)
        found[name] = as_record(bootstrap(mean_of(signal), len(signal)))
    sweep.close()
    return found


def mixed(objective: RetrievalObjective, queries: States, documents: States, views: Sequence[View]) -> Float32Array:
    """Return the weighted mean of the views' cosines."""
    products = [
        view.weight
        * objective.compare(
            queries.view(view.exit, view.readout),
            documents.view(view.exit, view.readout),
            view.postprocess,
            documents.stretches_of(view.exit, view.readout) if view.postprocess.startswith("within") else None,
        )
        for view in views
    ]
    total: Float32Array = np.sum(products, axis=0)
    return total
