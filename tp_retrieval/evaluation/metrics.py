"""Metrics, and estimates with 95% intervals by a paired bootstrap over pairs, queries or texts.

    bootstrap(lambda rows: spearman(predicted[rows], gold[rows]), len(gold))   # Estimate(76.0, 73.1, 78.8)

All figures are in percent. Ranks are scipy's, retrieval metrics are those of ir-measures, the probe and the
clustering scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tp_retrieval.errors import InputError
from tp_retrieval.types import Float32Array

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
Run = Mapping[str, Sequence[str]]
"""For each query the ids of documents, best first."""

RETRIEVAL = {
    "ndcg@10": ir_measures.nDCG @ 10,
    "recall@10": ir_measures.R @ 10,
    "recall@100": ir_measures.R @ 100,
    "mrr@10": ir_measures.RR @ 10,
    "map@100": ir_measures.AP @ 100,
}
RESAMPLES = 1000
_SEED = 20251


@dataclass(frozen=True)
class Estimate:
    """A figure in percent and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def bootstrap(statistic: Callable[[Rows], float], *counts: int, resamples: int = RESAMPLES) -> Estimate:
    """Return a statistic of all rows, times 100, with its percentile interval (Efron 1979).

    `statistic` takes the rows of a sample, drawn with replacement. `counts` are the sizes of consecutive strata, each
    resampled alone. Samples depend on the counts alone, so a statistic that subtracts two systems' values is paired.
    """
    if min(counts) < 1:
        raise InputError("a bootstrap needs at least one row")
    chance = np.random.default_rng(_SEED)
    begins = np.cumsum([0, *counts])[:-1]
    drawn = [
        statistic(np.concatenate([chance.integers(0, n, n) + begin for n, begin in zip(counts, begins, strict=True)]))
        for _ in range(resamples)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(100 * statistic(np.arange(sum(counts))), 100 * float(low), 100 * float(high))


def mean_of(values: Values) -> Callable[[Rows], float]:
    """Return the statistic that is the mean of the sampled rows' values."""
    return lambda rows: float(values[rows].mean())


def spearman(predicted: Values | Float32Array, gold: Values) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; 0 where either side is constant.

    This is scipy's `spearmanr` without the p-value.
    """
    if np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        return 0.0
    x, y = (ranks - ranks.mean() for ranks in stats.rankdata(np.stack([predicted, gold]), axis=1))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def retrieval(run: Run, grades: Mapping[str, Mapping[str, int]]) -> dict[str, Values]:
    """Return each metric's value for every judged query, in the order of `grades`."""
    qrels = [ir_measures.Qrel(query, id_, grade) for query, judged in grades.items() for id_, grade in judged.items()]
    scored = [ir_measures.ScoredDoc(query, id_, -float(rank)) for query, ids in run.items() for rank, id_ in enumerate(ids)]
    row = {query: i for i, query in enumerate(grades)}
    values = {name: np.zeros(len(row)) for name in RETRIEVAL}
    name_of = {measure: name for name, measure in RETRIEVAL.items()}
    for metric in ir_measures.iter_calc(list(RETRIEVAL.values()), qrels, scored):
        values[name_of[metric.measure]][row[metric.query_id]] = metric.value
    return values


def probe(train: Float32Array, train_labels: Sequence[str], test: Float32Array, test_labels: Sequence[str]) -> Values:
    """Return 1 for each test vector whose class a logistic regression on the training vectors predicts, else 0."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(train, train_labels)
    return np.asarray(model.predict(test) == np.array(test_labels), dtype=np.float64)


def clusters(vectors: Float32Array, count: int) -> NDArray[np.int64]:
    """Return the k-means cluster of every vector."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(count, n_init=4, random_state=0).fit_predict(vectors), dtype=np.int64)


def v_measure(labels: Sequence[str], clusters: NDArray[np.int64]) -> float:
    """Return the harmonic mean of homogeneity and completeness (Rosenberg and Hirschberg 2007)."""
    from sklearn.metrics import v_measure_score

    return float(v_measure_score(labels, clusters))
