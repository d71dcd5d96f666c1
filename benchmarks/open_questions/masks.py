"""Prepending beside a bidirectional mask in the same blocks, which the paper calls naive: similarity and retrieval.

Similarity as in `scopes`, with both kinds and the mask in all blocks as well; differences are paired. Retrieval is dense
nDCG@10 of the plain pair of prompts under `whiten:256`, texts cut at 256 tokens: the last token at the last exit, or at the
exit that is best for that arm on a third of the questions, of the other two thirds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from benchmarks.open_questions import scopes
from benchmarks.open_questions.common import SETS, Figures, add_items, as_json, known_prompts, load_whole, named, sts_set
from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import PrependKind, View
from tp_retrieval.evaluation.datasets import read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives.objective import estimate, gain
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate, prompts
from tp_retrieval.evaluation.tuning.view_search import ViewSearch

KINDS: tuple[PrependKind, PrependKind] = ("tp", "bidirectional")
SCOPES = ((0, 1), (0, 2), (1, 2), (1, 3), (1, 5), (1, 7))
FOLDERS = ("python-faq", "cranfield", "xquad-en")
_RETRIEVAL_SCOPES = ((1, 2), (1, 5))
_MAP = "whiten:256"

Signals = Mapping[bool, tuple[int, Values]]
"""The exit and every question's nDCG@10, at the last exit (False) and at the best one (True)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)
    parser.add_argument("--folders", nargs="*", default=list(FOLDERS), help="sets of retrieval, folders of DATA/ir")


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model on similarity and on retrieval."""
    embedder, data, items = load_whole(options), options.data, options.items
    every = (0, embedder.backbone.n_blocks)
    chosen_prompts = [known_prompts()[name] for name in ("prompteol", "icl")]
    found = scopes.of_prompts(
        embedder, [sts_set(data, name, items) for name in SETS], chosen_prompts, [*SCOPES, every], KINDS
    )
    found["retrieval"] = {name: _retrieval(embedder, data / "ir" / name, items) for name in options.folders}
    return named(embedder, found)


def _retrieval(embedder: Embedder, folder: Path, items: int | None) -> list[Figures]:
    dataset = read_retrieval(folder)
    if items is not None:
        dataset = RetrievalObjective(dataset, folded=False).sample(items).dataset
    objective = RetrievalObjective(cut(dataset, embedder, 256), dense_weights=(1.0,))
    (plain,) = (one for one in prompts("retrieval") if one.name == "plain")
    off = _signals(embedder, objective, plain)
    lines = [_line("off", objective, off, chosen, {}) for chosen in (False, True)]
    for start, stop in (one for one in _RETRIEVAL_SCOPES if one[1] <= embedder.backbone.n_blocks):
        tp = _signals(embedder, objective, plain.rewired("both", start, stop))
        mask = _signals(embedder, objective, plain.bidirectional(start, stop))
        for chosen in (False, True):
            lines.append(_line(f"tp {start}..{stop}", objective, tp, chosen, {"gain": off, "over the mask": mask}))
            lines.append(_line(f"bidirectional {start}..{stop}", objective, mask, chosen, {"gain": off}))
    return lines


def _signals(embedder: Embedder, objective: RetrievalObjective, prompt: PromptCandidate) -> Signals:
    sweep = Sweep(embedder)
    queries = sweep.states(prompt.query, prompt.prepend, objective.queries)
    documents = sweep.states(prompt.document, prompt.prepend, objective.documents, query=prompt.query)
    search = ViewSearch(objective, queries, documents)
    exits = range(max(1, 0 if prompt.prepend is None else prompt.prepend.stop), embedder.backbone.n_blocks + 1)
    found = {exit_: search.candidate([View(exit_, "last", _MAP)], 1.0).signal for exit_ in exits}
    sweep.close()
    best = max(found, key=lambda exit_: objective.score(found[exit_], objective.held_out))
    return {False: (exits[-1], found[exits[-1]]), True: (best, found[best])}


def _line(
    name: str, objective: RetrievalObjective, signals: Signals, chosen: bool, others: Mapping[str, Signals]
) -> Figures:
    exit_, signal = signals[chosen]
    rows = objective.chosen_by
    line: Figures = {"arm": name, "at": "best" if chosen else "last", "exit": exit_, "questions": len(rows)}
    line["score"] = as_json(estimate(objective, signal, rows))
    return line | {key: as_json(gain(objective, signal, other[chosen][1], rows)) for key, other in others.items()}
