"""How likely a hit is relevant, 0 to 1, from scores on a scale of their own query.

A cosine counts by how far it lies above those of other documents, in units of what the best of so many unrelated ones would
reach. BM25 counts by its share of what all of the query's words would give in one document, were each as rare as can be. A
logistic regression makes a probability of both. `benchmarks/relevance.py` fits its weights, and measures it on sets that
they were not fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.indexing.storage.metadata_index import Seqs

SAMPLE = 256
"""Rows whose cosines with a query stand for those of all rows."""

_PRIOR_ROWS, _PRIOR_SPREAD = 4, 0.1  # what the spread of cosines is taken for, and as how many rows that counts
_SATURATED = 2.2  # the highest weight that BM25 gives a word beside its rarity: k1 + 1


class Weights(NamedTuple):
    """The weights of a logistic regression on the evidence of cosine and BM25."""

    dense: float
    lexical: float
    constant: float


WEIGHTS: Mapping[tuple[bool, bool], Weights] = {
    (True, True): Weights(1.67, 18.94, -8.66),
    (True, False): Weights(4.02, 0.0, -6.34),
    (False, True): Weights(0.0, 23.6, -9.2),
}
"""By whether there is a cosine, and a BM25 score."""


class QueryScale:
    """What the scores of one query are compared with.

    `rows` is the number of documents, `terms` that of the query's words, and `cosines` are those of the rows `sample` with
    the query, both `(n,)`.
    """

    def __init__(self, rows: int, terms: int, sample: Seqs, cosines: NDArray[np.floating]) -> None:
        self._rows = rows
        self._terms = terms
        self._cosines = dict(zip(sample.tolist(), cosines.astype(np.float64).tolist(), strict=True))
        self._sum = math.fsum(self._cosines.values())
        self._squares = math.fsum(cosine**2 for cosine in self._cosines.values())

    def relevance(self, seq: int, parts: Mapping[str, float]) -> float:
        """Return the probability that a row with these scores, `dense` or `lexical` or both, is relevant."""
        dense, lexical = parts.get("dense"), parts.get("lexical")
        weights = WEIGHTS[dense is not None, lexical is not None]
        evidence = weights.constant
        if dense is not None:
            evidence += weights.dense * self.dense_evidence(seq, dense)
        if lexical is not None:
            evidence += weights.lexical * self.lexical_evidence(lexical)
        return 1 / (1 + math.exp(-evidence))

    def dense_evidence(self, seq: int, cosine: float) -> float:
        """Return how far a row's cosine lies above those of other rows, over the expected maximum of n normal variables."""
        count, total, squares = len(self._cosines), self._sum, self._squares
        if seq in self._cosines:  # it is compared with the others
            own = self._cosines[seq]
            count, total, squares = count - 1, total - own, squares - own**2
        if count == 0:
            return 0.0
        mean = total / count
        deviations = max(squares - total * mean, 0.0) + _PRIOR_ROWS * _PRIOR_SPREAD**2
        spread = math.sqrt(deviations / (count + _PRIOR_ROWS))
        return (cosine - mean) / spread / math.sqrt(2 * math.log(self._rows + 1))

    def lexical_evidence(self, score: float) -> float:
        """Return the square root of a BM25 score's share of the highest one that the query's words could have."""
        rarest = max(math.log((self._rows - 0.5) / 1.5), 1e-6) if self._rows > 1 else 1e-6  # as FTS5 has it
        return math.sqrt(max(score, 0.0) / (max(self._terms, 1) * _SATURATED * rarest))


def sample_of(seqs: Seqs) -> Seqs:
    """Return rows at equal distances."""
    places = np.linspace(0, len(seqs) - 1, min(len(seqs), SAMPLE)).round().astype(np.int64)
    return seqs[places]
