"""Which views of a model's states score best: every exit, readout and map alone, then the best ones in pairs.

search = ViewSearch(objective, query_states, document_states)
found = search.run(thorough=True)
found.best[0].views, found.best[0].score, found.curves
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from tp_retrieval.embedding.recipe import Readout, View
from tp_retrieval.evaluation.metrics import Values
from tp_retrieval.evaluation.objectives import Objective
from tp_retrieval.evaluation.sweep import States
from tp_retrieval.types import Float32Array

MAPS = ("none", "center", "abtt:1", "whiten:128", "whiten:256")
_COARSE_MAPS = ("center", "whiten:256")
_SHARES = (0.3, 0.5, 0.7)
_PAIRED = 5  # best single views of each readout that are tried in pairs
_KEPT = 3


@dataclass(frozen=True)
class Candidate:
    """Views with a share of the dense score in hybrid search, what they score, and the signal behind it."""

    views: tuple[View, ...]
    dense_weight: float
    score: float
    signal: Values = field(repr=False)


@dataclass(frozen=True)
class Found:
    """The best candidates, and for each readout and map the score of a single view at every exit that was tried."""

    best: list[Candidate]
    curves: dict[str, dict[str, float]]


class ViewSearch:
    """Score views of states on the items of an objective that choices look at.

    `queries` is None where both sides are documents.
    """

    def __init__(self, objective: Objective, queries: States | None, documents: States) -> None:
        self._objective = objective
        self._queries = queries
        self._documents = documents
        self._rows = objective.chosen_by

    def run(self, *, thorough: bool) -> Found:
        """Try exits, readouts and maps (a part of them, unless `thorough`), then pairs and shares of the best."""
        exits = self._documents.exits if thorough else _coarse(self._documents.exits)
        readouts: tuple[Readout, ...] = ("last", "mean")
        maps = MAPS if thorough else _COARSE_MAPS
        curves: dict[str, dict[str, float]] = {}
        singles: list[tuple[float, View, Float32Array]] = []
        for readout in readouts:
            tried = self._singles(exits, readout, maps)
            for score, view, _ in tried:
                curves.setdefault(f"{readout}, {view.postprocess}", {})[str(view.exit)] = 100 * score
            singles += sorted(tried, key=lambda one: -one[0])[:_PAIRED]
        if thorough:
            best_exits = list(dict.fromkeys(view.exit for _, view, _ in sorted(singles, key=lambda one: -one[0])))[:3]
            singles += sorted(self._singles(best_exits, "last+mean", maps), key=lambda one: -one[0])[:1]
        candidates = [self._weighed((view,), cosines) for _, view, cosines in singles]
        candidates += self._pairs(singles)
        candidates.sort(key=lambda one: -one.score)
        return Found(candidates[:_KEPT], curves)

    def candidate(self, views: Sequence[View], dense_weight: float) -> Candidate:
        """Score given views."""
        total = sum(view.weight for view in views)
        cosines = sum((view.weight / total) * self._cosines(view) for view in views)
        return self._scored(tuple(views), np.asarray(cosines, dtype=np.float32), dense_weight)

    def _singles(
        self, exits: Iterable[int | None], readout: Readout, maps: Sequence[str]
    ) -> list[tuple[float, View, Float32Array]]:
        found = []
        for exit_ in exits:
            if exit_ == 0 and readout != "mean":
                continue  # the last token's embedding is the same for all texts
            for map_ in maps:
                view = View(exit_, readout, map_)
                cosines = self._cosines(view)
                score = self._scored((view,), cosines, self._objective.dense_weights[0]).score
                found.append((score, view, cosines))
                found.sort(key=lambda one: -one[0])
                found[_PAIRED:] = [(score, view, cosines[:0]) for score, view, cosines in found[_PAIRED:]]  # memory
        return found

    def _pairs(self, singles: Sequence[tuple[float, View, Float32Array]]) -> list[Candidate]:
        found: list[tuple[Candidate, Float32Array]] = []
        for (_, one, first), (_, other, second) in combinations(singles, 2):
            if (one.exit, one.readout) == (other.exit, other.readout):
                continue
            for share in _SHARES:
                views = tuple(
                    View(view.exit, view.readout, view.postprocess, weight)
                    for view, weight in ((one, share), (other, round(1 - share, 2)))
                )
                cosines = share * first + (1 - share) * second
                candidate = self._scored(views, cosines, self._objective.dense_weights[0])
                found.append((candidate, cosines))
                found.sort(key=lambda pair: -pair[0].score)
                del found[_KEPT:]  # memory
        return [self._weighed(candidate.views, cosines) for candidate, cosines in found]

    def _weighed(self, views: tuple[View, ...], cosines: Float32Array) -> Candidate:
        """Return the candidate with the dense share that scores best."""
        return max((self._scored(views, cosines, w) for w in self._objective.dense_weights), key=lambda one: one.score)

    def _scored(self, views: tuple[View, ...], cosines: Float32Array, dense_weight: float) -> Candidate:
        signal = self._objective.signal(cosines, dense_weight)
        return Candidate(views, dense_weight, self._objective.score(signal, self._rows), signal)

    def _cosines(self, view: View) -> Float32Array:
        queries = None if self._queries is None else self._queries.view(view.exit, view.readout)
        return self._objective.compare(queries, self._documents.view(view.exit, view.readout), view.postprocess)


def _coarse(exits: Sequence[int | None]) -> list[int | None]:
    """Return the first two exits, every fourth after them, and the last five."""
    return [exit_ for i, exit_ in enumerate(exits) if i < 2 or i % 4 == 0 or i >= len(exits) - 5]
