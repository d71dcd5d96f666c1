"""How the best scope and exit of prepending move with the model: every scope at every exit, by prompt and map.

Scope and exit are chosen on a third of the pairs of all sets together, figures are of the other two thirds: Spearman's
correlation ×100, mean over the sets. Prepending is off or on, at the last exit or at the best one, with the scope that is
best there; gains are over the same prompt without it, read likewise, with paired 95% intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from benchmarks.open_questions.common import (
    MAPS,
    SCOPES,
    SETS,
    Figures,
    Floats,
    PairStates,
    Prompt,
    Resamples,
    add_items,
    estimate,
    gold,
    known_prompts,
    load_whole,
    named,
    spearman_of_rows,
    sts_set,
)
from tp_retrieval import Embedder
from tp_retrieval.embedding.recipe import PrependKind
from tp_retrieval.evaluation.objectives.sts import StsObjective

Arm = tuple[PrependKind | None, int, int]
Scopes = Sequence[tuple[int, int]]
OFF: Arm = (None, 0, 0)
_FEW: Scopes = ((1, 2), (1, 5), (1, 7))  # of prompts with several templates, which cost as many passes each


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)
    parser.add_argument("--prompts", nargs="+", default=list(known_prompts()), choices=list(known_prompts()))


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model."""
    embedder = load_whole(options)
    sets = [sts_set(options.data, name, options.items) for name in SETS]
    return named(embedder, of_prompts(embedder, sets, [known_prompts()[name] for name in options.prompts]))


def of_prompts(
    embedder: Embedder,
    sets: Sequence[StsObjective],
    prompts: Sequence[Prompt],
    scopes: Scopes = SCOPES,
    kinds: Sequence[PrependKind] = ("tp",),
) -> Figures:
    """Return the figures of a model for each prompt and map."""
    states = PairStates(embedder.backbone, sets)
    blocks = embedder.backbone.n_blocks
    figures: Figures = {"blocks": blocks, "width": embedder.backbone.width, "prompts": {}}
    figures["device"], figures["dtype"] = str(embedder.backbone.device), embedder.provenance.dtype
    figures["sets"] = {one.dataset.name: {"chosen on": len(one.held_out), "pairs": len(one.chosen_by)} for one in sets}
    samples = Resamples([gold(one)[one.chosen_by] for one in sets])
    for prompt in prompts:
        signals = all_signals(states, prompt, scopes if len(prompt.templates) == 1 else _FEW, kinds)
        figures["prompts"][prompt.name] = {
            name: _compared(of_map, sets, samples, kinds) for name, of_map in signals.items()
        }
    figures["rows that ran"] = states.passes
    return figures


def all_signals(
    states: PairStates, prompt: Prompt, scopes: Scopes, kinds: Sequence[PrependKind]
) -> dict[str, dict[Arm, list[Floats]]]:
    """Return for each map and arm the cosines `(exits, pairs)` of every set; the first arm is the prompt as it is."""
    inside = [scope for scope in scopes if scope[1] <= states.backbone.n_blocks]
    arms: list[Arm] = [OFF, *((kind, *scope) for kind in kinds for scope in inside)]
    signals: dict[str, dict[Arm, list[Floats]]] = {name: {} for name in MAPS}
    for arm in arms:
        kind, start, stop = arm
        templates, prepend = (prompt.templates, None) if kind is None else prompt.arm(kind, start, stop)
        for name, of_sets in states.cosines(templates, prepend).items():
            signals[name][arm] = of_sets
    return signals


def choose(
    signals: dict[Arm, list[Floats]], sets: Sequence[StsObjective], kinds: Sequence[PrependKind]
) -> dict[tuple[str, str], tuple[Arm, int]]:
    """Return the arm and the exit of off and of each kind, at the last exit and the best one, by a third of the pairs."""
    curves = {arm: _curve(of_sets, sets, 0) for arm, of_sets in signals.items()}
    last, best_exit = len(curves[OFF]), _best_exits(curves)
    chosen = {("off", "last"): (OFF, last), ("off", "best"): (OFF, best_exit[OFF])}
    for kind in kinds:
        of_kind = [arm for arm in signals if arm[0] == kind]
        chosen[kind, "last"] = max(of_kind, key=lambda arm: curves[arm][-1]), last
        best = max(of_kind, key=lambda arm: curves[arm][best_exit[arm] - 1])
        chosen[kind, "best"] = best, best_exit[best]
    return chosen


def _best_exits(curves: dict[Arm, Floats]) -> dict[Arm, int]:
    """Return each arm's best exit that is not before its scope's end."""
    least = {arm: max(arm[2], 1) for arm in curves}
    return {arm: least[arm] + int(np.argmax(curve[least[arm] - 1 :])) for arm, curve in curves.items()}


def _compared(
    signals: dict[Arm, list[Floats]], sets: Sequence[StsObjective], samples: Resamples, kinds: Sequence[PrependKind]
) -> Figures:
    """Return the table of two by two for each kind, the grid of scopes, and the curve of exits."""
    choosing, reported = ({arm: _curve(of_sets, sets, part) for arm, of_sets in signals.items()} for part in (0, 1))
    best_exit, chosen = _best_exits(choosing), choose(signals, sets, kinds)

    def read(arm: Arm, exit_: int) -> list[Floats]:
        return [signal[exit_ - 1, one.chosen_by] for signal, one in zip(signals[arm], sets, strict=True)]

    statistics = {key: samples.spearman(read(*what)) for key, what in chosen.items()}
    found: Figures = {"two by two": [], "differences": []}
    for (what, where), (arm, exit_) in chosen.items():
        off = statistics["off", where]
        line = {"what": what, "at": where, "scope": _name(arm), "exit": exit_}
        line |= {"score": estimate(statistics[what, where])}
        if what != "off":
            line["gain"] = estimate(statistics[what, where] - off)
            line["by set"] = _by_set(read(*chosen[what, where]), read(*chosen["off", where]), sets)
        found["two by two"].append(line)
    for one, other in combinations(kinds, 2):
        for where in ("last", "best"):
            difference = estimate(statistics[one, where] - statistics[other, where])
            found["differences"].append({"what": f"{one} over {other}", "at": where, "gain": difference})
    found["grid"] = [
        {
            "scope": _name(arm),
            "last": round(float(curve[-1]), 2),
            "exit": best_exit[arm],
            "best": round(float(curve[best_exit[arm] - 1]), 2),
            "by exit": [round(float(score), 2) for score in curve],
        }
        for arm, curve in reported.items()
    ]
    return found


def _curve(signals: Sequence[Floats], sets: Sequence[StsObjective], part: int) -> Floats:
    """Return the score at every exit, mean over the sets, of the pairs that exits are chosen on (0) or the others (1)."""
    rows = [one.held_out if part == 0 else one.chosen_by for one in sets]
    pieces = [
        spearman_of_rows(signal[:, items], gold(one)[items]) for signal, items, one in zip(signals, rows, sets, strict=True)
    ]
    return np.asarray(np.mean(pieces, axis=0))


def _by_set(on: Sequence[Floats], off: Sequence[Floats], sets: Sequence[StsObjective]) -> Figures:
    """Return the gain on each set."""
    found = {}
    for one, with_it, without in zip(sets, on, off, strict=True):
        samples = Resamples([gold(one)[one.chosen_by]])
        found[one.dataset.name] = estimate(samples.spearman([with_it]) - samples.spearman([without]))
    return found


def _name(arm: Arm) -> str:
    return "off" if arm[0] is None else f"{arm[0]} {arm[1]}..{arm[2]}"
