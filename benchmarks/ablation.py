"""What each ingredient is worth: every arm of `tp-retrieval ablate`, at the last exit and at its best one.

Similarity compares raw vectors. Retrieval compares vectors under `whiten:256`, documents cut at 128 tokens, of questions
drawn with their relevant documents and others, four documents a question, so that the sets are small.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.common import as_record, computed_in, load, read_pairs
from tp_retrieval import Embedder
from tp_retrieval.evaluation.ablate import AblationRow, ablate
from tp_retrieval.evaluation.datasets import read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.objectives.sts import StsObjective

SETS = {
    "sts": ("STSB-dev", "STS12", "SICKR-trial"),
    "retrieval": ("python-faq", "cranfield", "scifact", "xquad-en", "xquad-de"),
}
MAPS = {"sts": "none", "retrieval": "whiten:256"}
SCOPE = (1, 2)
TOKENS = 128
Objective = StsObjective | RetrievalObjective


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--task", required=True, choices=SETS)
    parser.add_argument("--sets", nargs="+", help="by default all of the task's")
    parser.add_argument("--items", type=int, help="so many pairs or questions of each set, drawn; by default all")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of every set."""
    embedder = load(options, options.task, whole=True)
    figures = {}
    for name, whole, objective in objectives(options, embedder):
        rows = ablate(embedder, objective, options.task, scope=SCOPE, postprocess=MAPS[options.task])
        read = len(objective.chosen_by)
        figures[name] = {"items": objective.count, "of": whole, "read": read, "rows": [as_json(row) for row in rows]}
        print(name, *figures[name]["rows"], sep="\n", flush=True)  # type: ignore[misc]
    return computed_in(embedder) | {"task": options.task, "scope": SCOPE, "map": MAPS[options.task], "sets": figures}


def objectives(options: argparse.Namespace, embedder: Embedder) -> Iterator[tuple[str, int, Objective]]:
    """Yield every set's name, its number of items, and the objective of those that are drawn."""
    for name in options.sets or SETS[options.task]:
        if options.task == "sts":
            pairs = read_pairs(options, name)
            sampled = StsObjective(pairs, folded=False)
            yield name, len(pairs.scores), StsObjective(sampled.sample(options.items).dataset if options.items else pairs)
        else:
            data = read_retrieval(options.data / "ir" / name)
            whole = len(data.queries)
            if options.items:
                data = RetrievalObjective(data, folded=False).sample(options.items).dataset
            yield name, whole, RetrievalObjective(cut(data, embedder, TOKENS), dense_weights=(1.0,))


def as_json(row: AblationRow) -> dict[str, Any]:
    """Return a row as JSON."""
    added = None if row.prepending is None else as_record(row.prepending)
    figures = {"score": as_record(row.score), "gain": as_record(row.gain), "prepending": added}
    return {"arm": row.arm, "exit": row.exit, "chosen": row.chosen, **figures}
