"""Ablation: prompts with and without prepending, each at the last exit and at its best one.

Published comparisons read the baseline at the last layer and the model with prepending at another. So every prompt here is
read at both: the last block, and the exit that scores best on a third of the items. Figures are of the other two thirds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.recipe import Prepend, Readout, View
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Estimate, Values
from tp_retrieval.evaluation.objectives.objective import Objective, estimate, gain
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate, Task, prompts, slotted
from tp_retrieval.evaluation.tuning.view_search import ViewSearch

Ablation = tuple[PromptCandidate, Readout, PromptCandidate | None]
"""A prompt, its readout, and the same prompt without prepending, if there is one."""


@dataclass(frozen=True)
class AblationRow:
    """A prompt read at one exit: its score, and its gain over the first prompt at the last exit.

    `prepending` is its gain over the same prompt without it, at that one's last (or best, if `chosen`) exit; None
    where there is no such prompt.
    """

    arm: str
    exit: int
    chosen: bool
    score: Estimate
    gain: Estimate
    prepending: Estimate | None


def ablate(
    embedder: Embedder,
    objective: Objective,
    task: Task,
    *,
    scope: tuple[int, int] = (1, 2),
    postprocess: str = "none",
    show_progress: bool = False,
) -> list[AblationRow]:
    """Score every prompt at the last exit and, as `chosen`, at its best one; all by vectors alone.

    Raises `InputError` for fewer than three items.
    """
    blocks = embedder.backbone.n_blocks
    if not 0 <= scope[0] < scope[1] <= blocks:
        raise InputError(f"scope: {scope[0]}..{scope[1]} must lie within the model's {blocks} blocks, the stop excluded")
    rows = objective.chosen_by
    if not len(objective.held_out) or not len(rows):
        raise InputError(f"{', '.join(objective.sets)}: too few items; a third of them chooses the exit")
    table = ablations(task, scope)
    signals = _signals(embedder, objective, table, postprocess, show_progress)
    _, first = next(iter(signals.values()))
    ablated = []
    for prompt, _, plain in table:
        for chosen in (False, True):
            exit_, signal = signals[prompt.name, chosen]
            added = None if plain is None else gain(objective, signal, signals[plain.name, chosen][1], rows)
            score, over_first = estimate(objective, signal, rows), gain(objective, signal, first, rows)
            ablated.append(AblationRow(prompt.name, exit_, chosen, score, over_first, added))
    return ablated


def _signals(
    embedder: Embedder, objective: Objective, table: Sequence[Ablation], postprocess: str, show_progress: bool
) -> dict[tuple[str, bool], tuple[int, Values]]:
    """Return the exit and the signal of every prompt, at the last exit (False) and at its best one (True)."""
    exits = list(range(1, embedder.backbone.n_blocks + 1))
    signals: dict[tuple[str, bool], tuple[int, Values]] = {}
    sweep = Sweep(embedder)
    previous: PromptCandidate | None = None
    try:
        for prompt, readout, _ in tqdm(table, unit="arm", disable=not show_progress, leave=False):
            if previous is None or prompt.key != previous.key:  # else another readout of the same pass
                sampled = objective.sampled if postprocess.startswith("within") else None
                query = prompt.query if objective.queries else prompt.document
                documents = sweep.states(prompt.document, prompt.prepend, objective.documents, query=query, sampled=sampled)
                queries = sweep.states(prompt.query, prompt.prepend, objective.queries) if objective.queries else None
            previous = prompt
            search = ViewSearch(objective, queries, documents)
            of_exits = [search.candidate([View(exit_, readout, postprocess)], 1.0).signal for exit_ in exits]
            best = int(np.argmax([objective.score(signal, objective.held_out) for signal in of_exits]))
            signals[prompt.name, False] = exits[-1], of_exits[-1]
            signals[prompt.name, True] = exits[best], of_exits[best]
    finally:
        sweep.close()
    return signals


def ablations(task: Task, scope: tuple[int, int]) -> Sequence[Ablation]:
    """Return the rows of the table: PromptEOL and one example, alone, with TP and bidirectional; HTP, plain text, echo."""
    by_name = {prompt.name: prompt for prompt in prompts(task)}
    plain, shown = (by_name[name] for name in (("prompteol", "icl") if task == "sts" else ("plain", "one example")))
    start, stop = scope
    htp = Prepend("htp", start, stop)
    echo = "Rewrite the sentence: <PST>, rewritten sentence: {text}"
    return [
        (plain, "last", None),
        (plain.rewired("both", start, stop), "last", plain),
        (plain.bidirectional(start, stop), "last", plain),
        (shown, "last", None),
        (shown.rewired("both", start, stop), "last", shown),
        (shown.bidirectional(start, stop), "last", shown),
        (
            PromptCandidate(f"{plain.name}, htp {start}..{stop}, mean", slotted(plain.query), slotted(plain.document), htp),
            "mean",
            None,
        ),
        (PromptCandidate("plain text, mean", "{text}", "{text}"), "mean", None),
        (PromptCandidate("plain text, last token", "{text}", "{text}"), "last", None),
        (PromptCandidate("echo, mean", echo, echo, Prepend("echo")), "mean", None),
    ]
