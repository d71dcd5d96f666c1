"""The search for views: every exit, readout and map is scored alone, then the best ones in pairs.

search = ViewSearch(objective, query_states, document_states)
result = search.run(thorough=True)
result.best[0].views, result.best[0].score, result.curves
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from tp_retrieval.embedding.maps.within import SAMPLE
from tp_retrieval.embedding.recipe import Readout, View
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives.objective import Objective
from tp_retrieval.evaluation.sweep import States
from tp_retrieval.types import Float32Array

MAPS = ("none", "center", "abtt:1", "whiten:128", "whiten:256", "within:256")
_COARSE_MAPS = ("center", "whiten:256", "within:256")
_SHARES = (0.3, 0.5, 0.7)
_PAIRED = 5  # best single views of each readout that are tried in pairs
_KEPT = 3


@dataclass(frozen=True)
class ViewCandidate:
    """Views with a share of the dense score in hybrid search, their score, and the signal that it aggregates."""

    views: tuple[View, ...]
    dense_weight: float
    score: float
    signal: Values = field(repr=False)

    def blocks(self, n_blocks: int) -> int:
        """Return how many blocks of a model of `n_blocks` run for most documents, those beyond a sample."""
        return max(n_blocks if view.exit is None else view.exit for view in self.views if view.sample is None)


@dataclass(frozen=True)
class ViewSearchResult:
    """The best candidates, and for each readout and map the score of a single view at every exit.

    `frontier` are candidates of which each runs more blocks and scores higher than the one before.
    """

    best: list[ViewCandidate]
    curves: dict[str, dict[str, float]]
    frontier: list[ViewCandidate] = field(default_factory=list)


@dataclass(frozen=True)
class _Single:
    score: float
    view: View
    cosines: Float32Array


class ViewSearch:
    """Scores views of states on the items of an objective that recipes are chosen by.

    `queries` is None where both sides are documents. The deepest of a candidate's exits is `least_depth` or more.
    """

    def __init__(self, objective: Objective, queries: States | None, documents: States, *, least_depth: int = 0) -> None:
        self._least_depth = least_depth
        self._objective = objective
        self._queries = queries
        self._documents = documents
        self._rows = objective.chosen_by

    def run(self, *, thorough: bool) -> ViewSearchResult:
        """Score exits, readouts and maps (some of them, unless `thorough`), then pairs and shares of the best."""
        exits = self._documents.exits if thorough else _coarse(self._documents.exits)
        readouts: tuple[Readout, ...] = ("last", "mean")
        maps = MAPS if thorough else _COARSE_MAPS
        curves: dict[str, dict[str, float]] = {}
        singles: list[_Single] = []
        every: list[_Single] = []
        for readout in readouts:
            scored = self._singles(exits, readout, maps)
            every += scored
            for single in scored:
                curves.setdefault(f"{readout}, {single.view.postprocess}", {})[str(single.view.exit)] = 100 * single.score
            singles += scored[:_PAIRED]
            deep = [one for one in scored[_PAIRED:] if _depth([one.view]) >= self._least_depth]
            if self._least_depth and deep:  # all of the best may be shallower
                singles.append(replace(deep[0], cosines=self._cosines(deep[0].view)))
        if thorough:
            best_exits = list(dict.fromkeys(single.view.exit for single in sorted(singles, key=_descending)))[:3]
            singles += self._singles(best_exits, "last+mean", maps)[:1]
        candidates = [self._weighed((single.view,), single.cosines) for single in singles]
        candidates += self._pairs(singles)
        candidates = [candidate for candidate in candidates if _depth(candidate.views) >= self._least_depth]
        candidates.sort(key=_descending)
        return ViewSearchResult(candidates[:_KEPT], curves, self._frontier(every, candidates) if thorough else [])

    def _frontier(self, singles: Sequence[_Single], candidates: Sequence[ViewCandidate]) -> list[ViewCandidate]:
        """Return the best single views and candidates, and those with a sampled view, that no cheaper one equals."""
        n_blocks = max(exit_ for exit_ in self._documents.exits if exit_ is not None)
        tried = [*candidates, *self._sampled(candidates)]
        best_at: dict[int | None, _Single] = {}
        for single in singles:
            best_at[single.view.exit] = max(best_at.get(single.view.exit, single), single, key=lambda one: one.score)
        for single in (one for one in best_at.values() if _depth([one.view]) >= self._least_depth):
            tried.append(self._weighed((single.view,), self._cosines(single.view)))
        return frontier(tried, n_blocks)

    def _sampled(self, candidates: Iterable[ViewCandidate]) -> Iterator[ViewCandidate]:
        """Yield pairs with their deeper view read of a sample alone, if an index has more documents than that."""
        if not self._objective.queries or len(self._objective.sampled["mean"]) == len(self._objective.documents):
            return
        for candidate in candidates:
            if len(candidate.views) > 1:
                first, deeper = sorted(candidate.views, key=lambda view: _depth([view]))
                yield self.candidate((first, replace(deeper, sample=SAMPLE)), candidate.dense_weight)

    def candidate(self, views: Sequence[View], dense_weight: float) -> ViewCandidate:
        """Score views with a dense share."""
        total = sum(view.weight for view in views)
        cosines = sum((view.weight / total) * self._cosines(view, views[0]) for view in views)
        return self._scored(tuple(views), np.asarray(cosines, dtype=np.float32), dense_weight)

    def _singles(self, exits: Iterable[int | None], readout: Readout, maps: Sequence[str]) -> list[_Single]:
        """Return every view with its score, best first; only the best ones keep their cosines, to save memory."""
        singles: list[_Single] = []
        for exit_ in exits:
            if exit_ == 0 and readout != "mean":
                continue  # the last token's embedding is the same for all texts
            for map_ in maps:
                if map_.startswith("within") and self._documents.stretches_of(exit_, readout) is None:
                    continue
                view = View(exit_, readout, map_)
                cosines = self._cosines(view)
                score = self._scored((view,), cosines, self._objective.dense_weights[0]).score
                singles.append(_Single(score, view, cosines))
                singles.sort(key=_descending)
                singles[_PAIRED:] = [replace(single, cosines=single.cosines[:0]) for single in singles[_PAIRED:]]
        return singles

    def _pairs(self, singles: Sequence[_Single]) -> list[ViewCandidate]:
        """Return the best pairs; no more than those have their cosines in memory."""
        best: list[tuple[ViewCandidate, Float32Array]] = []
        for first, second in combinations(singles, 2):
            if (first.view.exit, first.view.readout) == (second.view.exit, second.view.readout):
                continue
            for share in _SHARES:
                views = (replace(first.view, weight=share), replace(second.view, weight=round(1 - share, 2)))
                cosines = share * first.cosines + (1 - share) * second.cosines
                candidate = self._scored(views, cosines, self._objective.dense_weights[0])
                best.append((candidate, cosines))
                best.sort(key=lambda pair: -pair[0].score)
                del best[_KEPT:]
        return [self._weighed(candidate.views, cosines) for candidate, cosines in best]

    def _weighed(self, views: tuple[View, ...], cosines: Float32Array) -> ViewCandidate:
        """Return the candidate with the dense share that scores best."""
        return max((self._scored(views, cosines, w) for w in self._objective.dense_weights), key=lambda c: c.score)

    def _scored(self, views: tuple[View, ...], cosines: Float32Array, dense_weight: float) -> ViewCandidate:
        signal = self._objective.signal(cosines, dense_weight)
        return ViewCandidate(views, dense_weight, self._objective.score(signal, self._rows), signal)

    def _cosines(self, view: View, first: View | None = None) -> Float32Array:
        """Return a view's cosines; a sampled one is predicted from the `first` view, as by an index of a sample of 512."""
        queries = None if self._queries is None else self._queries.view(view.exit, view.readout)
        documents, stretches = self._documents, None
        if view.postprocess.startswith("within"):
            stretches = documents.stretches_of(view.exit, view.readout)
            if stretches is None:
                raise InputError(
                    f"views: {view.postprocess} of {view.readout} can't be measured; take last, mean, or whiten:D"
                )
        raw, source = documents.view(view.exit, view.readout), None
        if view.sample is not None and first is not None:
            source = documents.view(first.exit, first.readout)
            raw = raw.copy()
            raw[np.setdiff1d(np.arange(len(raw)), self._objective.sampled["mean"])] = np.nan
        return self._objective.compare(queries, raw, view.postprocess, stretches, source)


def frontier(candidates: Iterable[ViewCandidate], n_blocks: int) -> list[ViewCandidate]:
    """Return the candidates that score higher than each one that runs as many blocks or fewer, cheapest first."""
    kept: list[ViewCandidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.blocks(n_blocks), -one.score)):
        if not kept or candidate.score > kept[-1].score:
            kept.append(candidate)
    return kept


def _descending(scored: _Single | ViewCandidate) -> float:
    return -scored.score


def _depth(views: Sequence[View]) -> float:
    """Return the deepest exit of views; the final norm is deeper than every block."""
    return max(np.inf if view.exit is None else view.exit for view in views)


def _coarse(exits: Sequence[int | None]) -> list[int | None]:
    """Return the first two exits, every fourth after them, and the last five."""
    return [exit_ for i, exit_ in enumerate(exits) if i < 2 or i % 4 == 0 or i >= len(exits) - 5]
