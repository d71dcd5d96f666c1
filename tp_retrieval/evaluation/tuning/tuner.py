"""Find the recipe that suits a model and labelled data: prompt, prepending, views and fusion, chosen by measuring.

    tuner = Tuner(Embedder.from_pretrained(), RetrievalObjective(read_retrieval("ir/python-faq")), "retrieval")
    tuned = tuner.run()
    tuned.recipe, tuned.score        # the score is of queries kept from the search

First every prompt is scored on a sample of the data with some of the views, then the best prompt with prepending, then the
best few on all data with all views. Each pass over the texts gives the vectors of every exit and readout.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.within import sampled_views
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Estimate, Rows
from tp_retrieval.evaluation.objectives.objective import Objective, estimate, gain
from tp_retrieval.evaluation.sweep import States, Sweep
from tp_retrieval.evaluation.tuning.log import PromptResult, TuningLog
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate, Task, prompts, rewirings
from tp_retrieval.evaluation.tuning.view_search import MAPS, ViewCandidate, ViewSearch, frontier
from tp_retrieval.types import Role

BUDGET_MINUTES = 15.0
_SAMPLE_ITEMS = {"sts": 250, "retrieval": 60}  # pairs or queries
_SAMPLE_BUDGET = 0.55  # share of the budget
_FINALISTS = 3
_TIMED, _TIMES = 48, 2  # documents, and how often; the faster time counts


@dataclass(frozen=True)
class Comparison:
    """The scores, on items kept from the search, of the best recipe and of the one that tuning began with."""

    score: Estimate
    start: Estimate
    gain: Estimate


@dataclass(frozen=True)
class FrontierPoint:
    """A recipe than which no cheaper one scored higher, its cost, and its score on items kept from the search.

    `blocks` run for most documents, `texts_a_second` are documents that were embedded here; `below_tuned` is the gain of
    the tuned recipe over this one.
    """

    recipe: Recipe
    blocks: int
    texts_a_second: float
    score: Estimate
    below_tuned: Estimate

    @property
    def cost(self) -> str:
        """The blocks that run, for people."""
        sampled = any(view.sample is not None for view in self.recipe.views)
        return f"{self.blocks} block{'' if self.blocks == 1 else 's'}{', sampled' if sampled else ''}"


@dataclass(frozen=True)
class Tuned:
    """The chosen recipe, and how the best one compares with the first, over all datasets together and on each of them.

    The held-out items decide whether to change the recipe at all (`kept_start`). So the gain of a changed recipe is never
    below zero; that of an unchanged one says by how much the best recipe fell short. `frontier` are recipes by cost, the
    cheapest first and the tuned one last; `fast` is the cheapest that is not surely worse than that.
    """

    recipe: Recipe
    together: Comparison
    sets: dict[str, Comparison]
    kept_start: bool
    held_out: int
    chosen_by: int
    minutes: float
    frontier: list[FrontierPoint] = field(repr=False)
    results: list[PromptResult] = field(repr=False)

    @property
    def fast(self) -> Recipe:
        """The cheapest recipe of the frontier of which the interval below the tuned one includes zero."""
        return next(point.recipe for point in self.frontier if point.below_tuned.low <= 0)

    @property
    def score(self) -> Estimate:
        """The recipe's score on the held-out items."""
        return self.together.start if self.kept_start else self.together.score


class Tuner:
    """Tunes a recipe for an embedder's model, beginning with the embedder's recipe.

    `folder` holds the log of results, by which an interrupted run goes on; None writes no log. `on_progress` gets a line
    after each prompt candidate: its score, and how much of the budget is spent. Raises `InputError` for too few items.
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
        on_progress: Callable[[str], object] | None = None,
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
        self._show_progress = show_progress
        self._on_progress = on_progress
        self._start = PromptCandidate("as it was", recipe.query[0].source, recipe.document[0].source, recipe.prepend)
        self._states: dict[tuple[Any, ...], States] = {}
        self._spent = 0.0
        self._log = TuningLog(None if folder is None else folder / "arms.jsonl")
        sets = {name: len(items) for name, items in objective.sets.items()}
        texts = [list(objective.queries), list(objective.documents)]
        self._data = _digest(embedder.fingerprint, sets, *texts, list(objective.labels), MAPS)

    def run(self) -> Tuned:
        """Score prompts until the budget is spent, choose a recipe, and measure it on the held-out items."""
        begin = time.perf_counter()
        sweep = Sweep(self._embedder)
        try:
            sampled = self._on_sample(sweep)
            self._states.clear()
            finals = self._on_all_data(sweep, sampled)
        finally:
            self._states.clear()
            sweep.close()
        return self._choose(sampled, finals, (time.perf_counter() - begin) / 60)

    def _on_sample(self, sweep: Sweep) -> list[PromptResult]:
        sample = self._objective.sample(_SAMPLE_ITEMS[self._task])
        waiting = [self._start, *(prompt for prompt in prompts(self._task) if prompt.key != self._start.key)]
        results: list[PromptResult] = []
        rewired: set[str] = set()
        while waiting and (len(results) < 2 or self._spent < _SAMPLE_BUDGET * self._budget):
            results.append(self._result(sweep, waiting.pop(0), sample, full=False))
            if not waiting:  # the best prompts so far, with prepending
                ranked = [result.prompt for result in _ranked(results)]
                plain = [prompt for prompt in ranked if prompt.prepend is None and prompt.key not in rewired]
                if plain:
                    rewired.add(plain[0].key)
                    waiting = rewirings(self._task, plain[0], self._embedder.backbone.n_blocks)
        return results

    def _on_all_data(self, sweep: Sweep, sampled: list[PromptResult]) -> list[PromptResult]:
        start, *others = sampled
        per_text = start.seconds / max(self._texts(self._objective.sample(_SAMPLE_ITEMS[self._task])), 1)
        cost = per_text * self._texts(self._objective)
        finals = [self._result(sweep, start.prompt, self._objective, full=True)]
        for result in _ranked(others)[: _FINALISTS - 1]:
            if len(finals) > 1 and self._spent + cost > self._budget:
                break
            finals.append(self._result(sweep, result.prompt, self._objective, full=True))
        return finals

    def _texts(self, objective: Objective) -> int:
        return len(objective.queries) + len(objective.documents)

    def _result(self, sweep: Sweep, prompt: PromptCandidate, objective: Objective, *, full: bool) -> PromptResult:
        """Return a prompt's result, from the log if it is there."""
        is_start = full and prompt.key == self._start.key
        recipe = _digest(self._embedder.recipe.to_dict()) if is_start else ""  # its views and share are scored, too
        key = f"{self._data} {prompt.key} {len(objective.chosen_by)} {full} {recipe}"
        result = self._log.get(key)
        if result is None:
            result = self._measured(sweep, prompt, objective, full, is_start)
            self._log.append(key, result)
        self._spent += result.seconds
        if self._on_progress is not None:
            data, spent, budget = "all data" if full else "a sample", self._spent / 60, self._budget / 60
            self._on_progress(f"{prompt.name}: {100 * result.score:.1f} on {data}; {spent:.1f} of {budget:g} minutes spent")
        return result

    def _measured(
        self, sweep: Sweep, prompt: PromptCandidate, objective: Objective, full: bool, is_start: bool
    ) -> PromptResult:
        begin = time.perf_counter()
        count = self._texts(objective)
        with tqdm(total=count, desc=prompt.name, unit="text", disable=not self._show_progress, leave=False) as bar:
            documents = self._side(sweep, "document", prompt, objective, bar)
            queries = self._side(sweep, "query", prompt, objective, bar) if objective.queries else None
        stop = 0 if prompt.prepend is None else prompt.prepend.stop
        search = ViewSearch(objective, queries, documents, least_depth=stop)
        views = search.run(thorough=full)
        start = self._start_views(search, objective) if is_start else None
        return PromptResult(prompt, full, time.perf_counter() - begin, views.best, views.curves, start, views.frontier)

    def _start_views(self, search: ViewSearch, objective: Objective) -> ViewCandidate:
        """Score the views of the embedder's recipe, whose exit -1 is counted from the front."""
        recipe, last = self._embedder.recipe, self._embedder.backbone.n_blocks - 1
        views = [replace(view, exit=last) if view.exit == -1 else view for view in recipe.views]
        return search.candidate(views, objective.dense_weights[0] if recipe.dense_weight is None else recipe.dense_weight)

    def _side(self, sweep: Sweep, role: Role, prompt: PromptCandidate, objective: Objective, bar: tqdm[Any]) -> States:
        """Return the states of queries or documents, shared by prompts that differ on the other side alone.

        Stretches of documents go through the prompt of queries where there are some.
        """
        template = prompt.query if role == "query" else prompt.document
        texts = objective.queries if role == "query" else objective.documents
        apart = prompt.query if objective.queries else prompt.document
        read = template if role == "query" else template + apart
        prepend = None if prompt.prepend is None or "<PST>" not in read else tuple(vars(prompt.prepend).values())
        key = (role, template, apart if role == "document" else None, prepend, len(texts))
        if key not in self._states:
            sampled = objective.sampled if role == "document" else None
            self._states[key] = sweep.states(template, prompt.prepend, texts, bar, query=apart, sampled=sampled)
        return self._states[key]

    def _choose(self, sampled: list[PromptResult], finals: list[PromptResult], minutes: float) -> Tuned:
        objective, rows = self._objective, self._objective.held_out
        best = _ranked(finals)[0]
        chosen, start = best.best[0], finals[0].start
        if start is None:
            raise InputError("the first prompt must be the one tuning begins with")
        kept = gain(objective, chosen.signal, start.signal, rows).value <= 0
        recipe = self._embedder.recipe
        if not kept:
            weight = chosen.dense_weight if objective.queries else None
            recipe = best.prompt.recipe(chosen.views, recipe, weight)

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
            frontier=self._frontier(finals, start if kept else chosen),
            results=[*sampled, *finals],
        )

    def _frontier(self, finals: Sequence[PromptResult], written: ViewCandidate) -> list[FrontierPoint]:
        objective, rows = self._objective, self._objective.held_out
        blocks = self._embedder.backbone.n_blocks
        prompt_of = {id(candidate): r.prompt for r in finals for candidate in r.frontier}
        prompt_of[id(written)] = next(r.prompt for r in finals if written is r.start or written is r.best[0])
        kept = frontier([candidate for r in finals for candidate in r.frontier], blocks)
        cheaper = [candidate for candidate in kept if candidate.blocks(blocks) < written.blocks(blocks)]
        points = []
        for candidate in [*cheaper, written]:
            weight = candidate.dense_weight if objective.queries else None
            recipe = prompt_of[id(candidate)].recipe(candidate.views, self._embedder.recipe, weight)
            points.append(
                FrontierPoint(
                    recipe,
                    candidate.blocks(blocks),
                    self._texts_a_second(recipe),
                    estimate(objective, candidate.signal, rows),
                    gain(objective, written.signal, candidate.signal, rows),
                )
            )
        return points

    def _texts_a_second(self, recipe: Recipe) -> float:
        """Return how many documents are embedded in a second here, without what is read of a sample."""
        embedder, texts = self._embedder.with_recipe(recipe), list(self._objective.documents[:_TIMED])
        sampled = sampled_views(embedder.raw_views)
        embedder.embed_with_stretches(texts[:1], [()], sampled=sampled)  # reads the prompt
        spent = []
        for _ in range(_TIMES):
            begin = time.perf_counter()
            embedder.embed_with_stretches(texts, [()] * len(texts), sampled=sampled)
            spent.append(time.perf_counter() - begin)
        return len(texts) / min(spent)


def _ranked(results: Sequence[PromptResult]) -> list[PromptResult]:
    return sorted(results, key=lambda result: -result.score)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
