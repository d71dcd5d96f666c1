"""What each ingredient is worth: prepending off and on, at the last exit and the best, beside other ways to prompt.

The published comparisons read their baseline at the last layer and the rewired model at another. So every arm here is read
at both: the last block, and the exit that scores best on a third of the items. Figures are of the other two thirds.
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
from tp_retrieval.evaluation.objectives import Objective, estimate, gain
from tp_retrieval.evaluation.sweep import Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import Arm, Task, prompts, slotted
from tp_retrieval.evaluation.tuning.view_search import ViewSearch


@dataclass(frozen=True)
class Ablated:
    """An arm read at one exit: its score, and what it gains over the first arm at the last exit.

    `prepending` is what it gains over the same prompt without rewiring, read likewise (`chosen` or not); None where there
    is no such arm.
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
) -> list[Ablated]:
    """Return every arm at the last exit and, as `chosen`, at its best one; all by vectors alone.

    Raises `InputError` for fewer than three items.
    """
    blocks = embedder.backbone.n_blocks
    if not 0 <= scope[0] < scope[1] <= blocks:
        raise InputError(f"scope: {scope[0]}..{scope[1]} must lie within the model's {blocks} blocks, the stop excluded")
    exits = list(range(1, blocks + 1))
    rows, choosing = objective.chosen_by, objective.held_out
    if not len(choosing) or not len(rows):
        raise InputError(f"{', '.join(objective.sets)}: too few items; a third of them chooses the exit")
    signals: dict[tuple[str, bool], tuple[int, Values]] = {}
    table = arms(task, scope)
    sweep = Sweep(embedder)
    previous: Arm | None = None
    try:
        for arm, readout, _ in tqdm(table, unit="arm", disable=not show_progress, leave=False):
            if previous is None or arm.key != previous.key:  # two arms may be two readings of one pass
                documents = sweep.states(arm.document, arm.prepend, objective.documents)
                queries = sweep.states(arm.query, arm.prepend, objective.queries) if objective.queries else None
            previous = arm
            search = ViewSearch(objective, queries, documents)
            of_exits = [search.candidate([View(e, readout, postprocess)], 1.0).signal for e in exits]
            best = int(np.argmax([objective.score(signal, choosing) for signal in of_exits]))
            signals[arm.name, False] = exits[-1], of_exits[-1]
            signals[arm.name, True] = exits[best], of_exits[best]
    finally:
        sweep.close()
    _, first = next(iter(signals.values()))
    found = []
    for arm, _, unwired in table:
        for chosen in (False, True):
            exit_, signal = signals[arm.name, chosen]
            added = None if unwired is None else gain(objective, signal, signals[unwired.name, chosen][1], rows)
            score, over_first = estimate(objective, signal, rows), gain(objective, signal, first, rows)
            found.append(Ablated(arm.name, exit_, chosen, score, over_first, added))
    return found


def arms(task: Task, scope: tuple[int, int]) -> Sequence[tuple[Arm, Readout, Arm | None]]:
    """Return the arms of the table: PromptEOL and one example, each rewired and not, HTP, plain text, and echo.

    The third is the arm that says what prepending adds: the same prompt and readout without it.
    """
    by_name = {arm.name: arm for arm in prompts(task)}
    plain, shown = (by_name[name] for name in (("prompteol", "icl") if task == "sts" else ("plain", "one example")))
    start, stop = scope
    htp = Prepend("htp", start, stop)
    echo = "Rewrite the sentence: <PST>, rewritten sentence: {text}"
    return [
        (plain, "last", None),
        (plain.rewired("both", start, stop), "last", plain),
        (shown, "last", None),
        (shown.rewired("both", start, stop), "last", shown),
        (Arm(f"{plain.name}, htp {start}..{stop}, mean", slotted(plain.query), slotted(plain.document), htp), "mean", None),
        (Arm("plain text, mean", "{text}", "{text}"), "mean", None),
        (Arm("plain text, last token", "{text}", "{text}"), "last", None),
        (Arm("echo, mean", echo, echo, Prepend("echo")), "mean", None),
    ]
