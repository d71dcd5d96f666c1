"""Prepending under a map: every kind at the early exits and the last one, dense nDCG@10 of the mean, on several sets.

The plain pair of prompts, without a demonstration. Beside each figure is its gain over the same exit without prepending,
with its paired 95% interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.common import as_record, computed_in, load, read_set
from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import Prepend, Readout
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
SETS = ("python-faq", "cranfield")


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--map", default="within:256")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the mean of every set, view and arm, and its gain over the view without prepending."""
    embedder = load(options, "retrieval", whole=True)
    figures: dict[str, Any] = {}
    for name in options.sets:
        objective = RetrievalObjective(read_set(options, name, embedder), folded=False)
        by_arm = {arm: signals(embedder, objective, prepend, options.map) for arm, prepend in ARMS.items()}
        figures[name] = {
            view: {arm: scored(objective, by_view[view], plain) for arm, by_view in by_arm.items()}
            for view, plain in by_arm["none"].items()
        }
        print(name, figures[name], flush=True)
    return computed_in(embedder) | {"map": options.map, "sets": figures}


def scored(objective: RetrievalObjective, signal: Values, plain: Values) -> dict[str, Any]:
    """Return a mean in percent, and its gain over another signal where it is another."""
    mean = round(100 * float(signal.mean()), 2)
    if signal is plain:
        return {"value": mean, "gain": None}
    return {"value": mean, "gain": as_record(gain(objective, signal, plain, np.arange(objective.count)))}
