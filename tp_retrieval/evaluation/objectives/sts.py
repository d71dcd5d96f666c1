"""The objective of sentence pairs: Spearman's correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tp_retrieval.evaluation.datasets import StsPairs
from tp_retrieval.evaluation.metrics import Rows, Values, spearman
from tp_retrieval.evaluation.objectives.objective import SingleSet, drawn
from tp_retrieval.types import Float32Array


@dataclass
class StsObjective(SingleSet):
    """Spearman's correlation of cosines with gold similarities."""

    dataset: StsPairs
    folded: bool = True
    dense_weights: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        self.count = len(self.dataset.scores)
        self._gold = np.array(self.dataset.scores)
        self.documents = list(dict.fromkeys(self.dataset.first + self.dataset.second))
        row = {text: i for i, text in enumerate(self.documents)}
        self._first = [row[text] for text in self.dataset.first]
        self._second = [row[text] for text in self.dataset.second]

    def texts_of_items(self) -> Sequence[object]:
        """Return each pair's sentences as a set."""
        return [frozenset(pair) for pair in zip(self.dataset.first, self.dataset.second, strict=True)]

    @property
    def queries(self) -> Sequence[str]:
        """No texts: both sides are documents."""
        return []

    @property
    def labels(self) -> Sequence[object]:
        """The pairs' scores."""
        return self.dataset.scores

    def cosines(self, queries: Float32Array, documents: Float32Array) -> Float32Array:
        """Return the cosine of every pair `(n,)`; `queries` is ignored."""
        first, second = documents[self._first], documents[self._second]
        products: Float32Array = np.einsum("nd,nd->n", first, second)
        return products

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return the cosines themselves."""
        return cosines.astype(np.float64)

    def score(self, signal: Values, rows: Rows) -> float:
        """Return Spearman's correlation of some pairs."""
        return spearman(signal[rows], self._gold[rows])

    def sample(self, items: int) -> StsObjective:
        """Return an objective of some pairs of `chosen_by`."""
        rows = drawn(self.chosen_by, items)
        data = self.dataset
        parts = ([column[i] for i in rows] for column in (data.first, data.second, data.scores, data.subsets))
        return StsObjective(StsPairs(data.name, *parts), folded=False)  # type: ignore[arg-type]
