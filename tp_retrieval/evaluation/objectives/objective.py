"""An objective: cosines of labelled texts, turned into one value an item, and values into a score.

objective = RetrievalObjective(read_retrieval("ir/python-faq"))
cosines = objective.compare(raw_queries, raw_documents, "whiten:256")
signal = objective.signal(cosines, dense_weight=0.4)   # nDCG@10 of every query
estimate(objective, signal, objective.held_out)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from tp_retrieval.embedding.maps.affine import fit_nearest, is_unread, mapped_view, unit
from tp_retrieval.embedding.maps.within import ViewStretches, sample
from tp_retrieval.embedding.recipe import Readout
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs
from tp_retrieval.evaluation.metrics import Estimate, Rows, Values, bootstrap
from tp_retrieval.types import Float32Array, VectorView

_SEED = 7
HELD_OUT = 1 / 3
"""Share of items that no search for a recipe reads."""


class Objective(Protocol):
    """Labelled data, and the score of vectors on it."""

    dense_weights: Sequence[float]
    """Shares of the dense score to try in a hybrid search; (1.0,) without one."""

    @property
    def queries(self) -> Sequence[str]:
        """Texts embedded as queries; empty if both sides are documents."""

    @property
    def documents(self) -> Sequence[str]:
        """Texts embedded as documents, on which maps are fitted."""

    @property
    def labels(self) -> Sequence[object]:
        """The gold label of every item, as JSON values."""

    @property
    def held_out(self) -> Rows:
        """Items kept from the search, to measure its result on."""

    @property
    def chosen_by(self) -> Rows:
        """Items that recipes are chosen by."""

    @property
    def sets(self) -> Mapping[str, Rows]:
        """The items of each dataset, by its name."""

    @property
    def sampled(self) -> Mapping[Readout, Rows]:
        """The documents whose stretches maps are fitted on, for each readout."""

    def compare(
        self,
        queries: Float32Array | None,
        documents: Float32Array,
        map_: str,
        stretches: ViewStretches | None = None,
        source: Float32Array | None = None,
    ) -> Float32Array:
        """Return the cosines that are scored, of raw vectors `(n, width)` and a map fitted on documents and stretches.

        With `source`, the raw vectors of another view, documents that are NaN are predicted from it.
        """

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return one value an item."""

    def score(self, signal: Values, rows: Rows) -> float:
        """Aggregate the values of some items into the metric."""

    def sample(self, items: int) -> Objective:
        """Return an objective of `items` random items of `chosen_by`, with none held out."""


class SingleSet:
    """The items of one dataset, split once at random: some to choose a recipe by, the others held out.

    An item with the texts of a held-out one is in neither part.
    """

    dataset: StsPairs | RetrievalSet
    documents: Sequence[str]
    count: int
    folded: bool

    def texts_of_items(self) -> Sequence[object]:
        """Return the texts of each item, equal for duplicates."""
        raise NotImplementedError

    @cached_property
    def _order(self) -> Rows:
        return np.random.default_rng(_SEED).permutation(self.count)

    @property
    def held_out(self) -> Rows:
        """Items kept from the search, to measure its result on."""
        return np.sort(self._order[: int(self.count * HELD_OUT)]) if self.folded else np.arange(0)

    @cached_property
    def chosen_by(self) -> Rows:
        """Items that recipes are chosen by."""
        if not self.folded:
            return np.arange(self.count)
        texts = self.texts_of_items()
        held_out = {texts[i] for i in self.held_out}
        others = np.sort(self._order[int(self.count * HELD_OUT) :])
        return np.array([i for i in others if texts[i] not in held_out], dtype=int)

    @property
    def sets(self) -> Mapping[str, Rows]:
        """All items, by the dataset's name."""
        return {self.dataset.name: np.arange(self.count)}

    @cached_property
    def sampled(self) -> Mapping[Readout, Rows]:
        """The documents whose stretches maps are fitted on, for each readout."""
        return sampled_documents(self.documents)

    def compare(
        self,
        queries: Float32Array | None,
        documents: Float32Array,
        map_: str,
        stretches: ViewStretches | None = None,
        source: Float32Array | None = None,
    ) -> Float32Array:
        """Return the cosines that are scored, as the protocol says."""
        read = ~is_unread(documents)
        fitted = fit_nearest(map_, documents[read], stretches)
        if source is not None:
            fitted = fitted.with_prediction(lambda: [(source[read], documents[read])])
        units = unit(fitted(documents)) if source is None else mapped_view(fitted, documents, source)
        return self.cosines(units if queries is None else unit(fitted(queries, "query")), units)

    def cosines(self, queries: Float32Array, documents: Float32Array) -> Float32Array:
        """Return the cosines that are scored, of unit vectors `(n, dim)`."""
        raise NotImplementedError


def sampled_documents(texts: Sequence[str]) -> Mapping[Readout, Rows]:
    """Return the rows of the texts whose stretches an index would fit maps on, for each readout."""
    views = [VectorView(1, "within:1"), VectorView(1, "within:1", asymmetric=True)]
    chosen = sample(texts, views)
    readouts: tuple[Readout, Readout] = ("mean", "last")
    return {readout: np.flatnonzero([i in of_text for of_text in chosen]) for i, readout in enumerate(readouts)}


def estimate(objective: Objective, signal: Values, rows: Rows) -> Estimate:
    """Return the score of some items with its interval."""
    return bootstrap(lambda sample: objective.score(signal, rows[sample]), *_items_of_sets(objective, rows))


def gain(objective: Objective, signal: Values, over: Values, rows: Rows) -> Estimate:
    """Return the difference of two signals' scores on the same items, with its paired interval."""
    return bootstrap(
        lambda sample: objective.score(signal, rows[sample]) - objective.score(over, rows[sample]),
        *_items_of_sets(objective, rows),
    )


def _items_of_sets(objective: Objective, rows: Rows) -> list[int]:
    """Return how many of the sorted items each dataset has, without the datasets that have none."""
    counts = [len(np.intersect1d(rows, items)) for items in objective.sets.values()]
    return [count for count in counts if count] or [0]


def drawn(rows: Rows, count: int) -> list[int]:
    """Return `count` random rows, sorted; the same ones each time."""
    chosen = np.random.default_rng(_SEED + 1).permutation(rows)[:count]
    return sorted(int(i) for i in chosen)
