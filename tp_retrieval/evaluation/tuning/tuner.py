"""Find the recipe that suits a model and labelled data: prompt, prepending, views and fusion, chosen by measuring.

    tuner = Tuner(Embedder.from_pretrained(), RetrievalObjective(read_retrieval("ir/python-faq")), "retrieval")
    tuned = tuner.run()
    tuned.recipe, tuned.score        # the score is of queries that the search did not look at

First every prompt on a sample of the data and a part of the views, then prepending on the best prompt, then the best few
arms on all data and all views. Every pass over the texts is read at every exit and in every way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.recipe import Prepend, Recipe, View
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Estimate, Rows, Values
from tp_retrieval.evaluation.objectives import Objective, estimate, gain
from tp_retrieval.evaluation.sweep import States, Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import Arm, Task, prompts, rewirings
from tp_retrieval.evaluation.tuning.view_search import MAPS, Candidate, Found, ViewSearch
from tp_retrieval.types import Role

BUDGET_MINUTES = 15.0
_SAMPLE = {"sts": 250, "retrieval": 60}  # pairs or queries of the first look
_FIRST_LOOK = 0.55  # share of the budget
_FINALISTS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmResult:
    """What an arm reached: on a sample (`full` False) or on all data, its best candidates and the start's own views."""

    arm: Arm
    full: bool
    seconds: float
    best: list[Candidate]
    curves: dict[str, dict[str, float]]
    start: Candidate | None = None

    @property
    def score(self) -> float:
        """The best candidate's score on the items that choices look at."""
        return self.best[0].score


@dataclass(frozen=True)
class Comparison:
    """What the best recipe found and the one that tuning began with score on items that the search did not look at."""

    score: Estimate
    start: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Tuned:
    """The chosen recipe, and what the best one found is worth over all sets of data together and on each of them.

    One choice looks at what was held out: whether to change the recipe at all (`kept_start`). So a gain that is reported
    together with a change is never below zero; where nothing was changed it says by how much the best found fell short.
    """

    recipe: Recipe
    together: Comparison
    sets: dict[str, Comparison]
    kept_start: bool
    held_out: int
    chosen_by: int
    minutes: float
    arms: list[ArmResult] = field(repr=False)

    @property
    def score(self) -> Estimate:
        """What the recipe scores on items that were held out."""
        return self.together.start if self.kept_start else self.together.score


class Tuner:
    """Tune a recipe for an embedder's model, beginning with the embedder's own recipe.

    `folder` keeps what every arm reached, so that an interrupted run goes on where it stopped; None keeps nothing. `told`
    gets a line after each arm: what it reached, and how much of the budget is spent. Raises `InputError` for too few items.
    """

    def __init__(
        self,
        embedder: Embedder,
        objective: Objective,
        task: Task,
        *,
        folder: Path | None = None,
        budget_minutes: float = BUDGET_MINUTES,
        show_progress: bool = False,
        told: Callable[[str], object] | None = None,
    ) -> None:
        recipe = embedder.recipe
        if len(recipe.query) > 1 or len(recipe.document) > 1:
            raise InputError("recipe: tuning begins with one template a role, not with several")
        for name, items in objective.sets.items():
            if min(len(np.intersect1d(items, part)) for part in (objective.held_out, objective.chosen_by)) < 2:
                raise InputError(f"{name}: {len(items)} items are too few: some must stay unseen")
        self._embedder = embedder
        self._objective = objective
        self._task = task
        self._budget = 60 * budget_minutes
        self._show = show_progress
        self._told = told
        self._start = Arm("as it was", recipe.query[0].source, recipe.document[0].source, recipe.prepend)
        self._states: dict[tuple[Any, ...], States] = {}
        self._spent = 0.0
        self._log = None if folder is None else folder / "arms.jsonl"
        self._known = {} if self._log is None else _read(self._log)
        sets = {name: len(items) for name, items in objective.sets.items()}
        texts = [list(objective.queries), list(objective.documents)]
        self._data = _digest(embedder.fingerprint, sets, *texts, list(objective.labels), MAPS)

    def run(self) -> Tuned:
        """Try arms until the budget is spent, choose, and measure the choice on what was held out."""
        begin = time.perf_counter()
        sweep = Sweep(self._embedder)
        try:
            looked = self._first_look(sweep)
            self._states.clear()
            finals = self._finals(sweep, looked)
        finally:
            self._states.clear()
            sweep.close()
        return self._choose(looked, finals, (time.perf_counter() - begin) / 60)

    def _first_look(self, sweep: Sweep) -> list[ArmResult]:
        sample = self._objective.sample(_SAMPLE[self._task])
        waiting = [self._start, *(arm for arm in prompts(self._task) if arm.key != self._start.key)]
        results: list[ArmResult] = []
        rewired: set[str] = set()
        while waiting and (len(results) < 2 or self._spent < _FIRST_LOOK * self._budget):
            results.append(self._result(sweep, waiting.pop(0), sample, full=False))
            if not waiting:  # the best prompts so far, with their slots rewired
                plain = [one for one in _ranked(results) if one.arm.prepend is None and one.arm.key not in rewired]
                if plain:
                    rewired.add(plain[0].arm.key)
                    waiting = rewirings(self._task, plain[0].arm, self._embedder.backbone.n_blocks)
        return results

    def _finals(self, sweep: Sweep, looked: list[ArmResult]) -> list[ArmResult]:
        start, *others = looked
        per_text = start.seconds / max(self._texts(self._objective.sample(_SAMPLE[self._task])), 1)
        cost = per_text * self._texts(self._objective)
        finals = [self._result(sweep, start.arm, self._objective, full=True)]
        for one in _ranked(others)[: _FINALISTS - 1]:
            if len(finals) > 1 and self._spent + cost > self._budget:
                break
            finals.append(self._result(sweep, one.arm, self._objective, full=True))
        return finals

    def _texts(self, objective: Objective) -> int:
        return len(objective.queries) + len(objective.documents)

    def _result(self, sweep: Sweep, arm: Arm, objective: Objective, *, full: bool) -> ArmResult:
        is_start = full and arm.key == self._start.key
        own = _digest(self._embedder.recipe.to_dict()) if is_start else ""  # its views and share are scored, too
        key = f"{self._data} {arm.key} {len(objective.chosen_by)} {full} {own}"
        if key not in self._known:
            begin = time.perf_counter()
            with tqdm(total=self._texts(objective), desc=arm.name, unit="text", disable=not self._show, leave=False) as bar:
                documents = self._side(sweep, "document", arm, objective.documents, bar)
                queries = self._side(sweep, "query", arm, objective.queries, bar) if objective.queries else None
            search = ViewSearch(objective, queries, documents)
            found: Found = search.run(thorough=full)
            start = None
            if is_start:
                recipe = self._embedder.recipe
                views = [self._resolved(view) for view in recipe.views]
                share = objective.dense_weights[0] if recipe.dense_weight is None else recipe.dense_weight
                start = search.candidate(views, share)
            seconds = time.perf_counter() - begin
            self._known[key] = ArmResult(arm, full, seconds, found.best, found.curves, start)
            if self._log is not None:
                _append(self._log, key, self._known[key])
        result = self._known[key]
        self._spent += result.seconds
        if self._told is not None:
            data, spent, budget = "all data" if full else "a sample", self._spent / 60, self._budget / 60
            self._told(f"{arm.name}: {100 * result.score:.1f} on {data}; {spent:.1f} of {budget:g} minutes spent")
        return result

    def _resolved(self, view: View) -> View:
        """Return a view whose exit is counted from the front."""
        last = self._embedder.backbone.n_blocks - 1
        return View(last if view.exit == -1 else view.exit, view.readout, view.postprocess, view.weight)

    def _side(self, sweep: Sweep, role: Role, arm: Arm, texts: Sequence[str], bar: tqdm[Any]) -> States:
        """Return the states of an arm's queries or documents, which arms that differ on the other side share."""
        template = arm.query if role == "query" else arm.document
        used = None if arm.prepend is None or "<PST>" not in template else tuple(vars(arm.prepend).values())
        key = (role, template, used, len(texts))
        if key not in self._states:
            self._states[key] = sweep.states(template, arm.prepend, texts, bar)
        return self._states[key]

    def _choose(self, looked: list[ArmResult], finals: list[ArmResult], minutes: float) -> Tuned:
        objective, rows = self._objective, self._objective.held_out
        best = _ranked(finals)[0]
        chosen, start = best.best[0], finals[0].start
        if start is None:
            raise InputError("the first arm must be the one tuning begins with")
        kept = gain(objective, chosen.signal, start.signal, rows).value <= 0
        recipe = self._embedder.recipe
        if not kept:
            weight = chosen.dense_weight if objective.queries else None
            recipe = best.arm.recipe(chosen.views, recipe, weight)

        def compared(rows: Rows) -> Comparison:
            return Comparison(
                estimate(objective, chosen.signal, rows),
                estimate(objective, start.signal, rows),
                gain(objective, chosen.signal, start.signal, rows),
            )

        return Tuned(
            recipe=recipe,
            together=compared(rows),
            sets={name: compared(np.intersect1d(rows, items)) for name, items in objective.sets.items()},
            kept_start=kept,
            held_out=len(rows),
            chosen_by=len(objective.chosen_by),
            minutes=minutes,
            arms=[*looked, *finals],
        )


def _ranked(results: Sequence[ArmResult]) -> list[ArmResult]:
    return sorted(results, key=lambda one: -one.score)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _append(log: Path, key: str, result: ArmResult) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    record = {"key": key, **asdict(result)}
    text = json.dumps(record, default=lambda array: array.tolist())
    with log.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def _read(log: Path) -> dict[str, ArmResult]:
    found: dict[str, ArmResult] = {}
    if not log.exists():
        return found
    *lines, cut_short = log.read_text(encoding="utf-8", errors="replace").split("\n")
    if cut_short:
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for number, line in enumerate(lines, 1):
        try:
            key, result = _result(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s, line %d: holds no result of an arm, which is measured again", log, number)
            continue
        found[key] = result
    return found


def _result(record: dict[str, Any]) -> tuple[str, ArmResult]:
    key, arm, start = record.pop("key"), record.pop("arm"), record.pop("start")
    arm["prepend"] = None if arm["prepend"] is None else Prepend(**arm["prepend"])
    best = [_candidate(one) for one in record.pop("best")]
    return key, ArmResult(Arm(**arm), best=best, start=None if start is None else _candidate(start), **record)


def _candidate(record: dict[str, Any]) -> Candidate:
    views = tuple(View(**view) for view in record["views"])
    signal: Values = np.array(record["signal"])
    return Candidate(views, record["dense_weight"], record["score"], signal)
