"""Two scores of the same candidates made one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-6  # scores that differ by less are equal but for rounding
_RANK_OFFSET = 60  # Cormack et al., SIGIR 2009


def convex(dense: NDArray[np.float64], lexical: NDArray[np.float64], dense_weight: float) -> NDArray[np.float64]:
    """Return `w * z(dense) + (1 - w) * z(lexical)`, each standardised over the candidates `(n,)`.

    Bruch et al., ACM TOIS 2023 (arXiv 2210.11934): a convex combination is better and easier to tune than reciprocal
    ranks.
    """
    return dense_weight * _standardised(dense) + (1 - dense_weight) * _standardised(lexical)


def reciprocal_rank(dense: NDArray[np.float64], lexical: NDArray[np.float64], dense_weight: float) -> NDArray[np.float64]:
    """Return `w / (60 + dense rank) + (1 - w) / (60 + lexical rank)`; a candidate without any common word has no
    lexical rank and gets nothing for it.
    """
    fused = dense_weight / (_RANK_OFFSET + _ranks(dense))
    return fused + np.where(lexical > 0, (1 - dense_weight) / (_RANK_OFFSET + _ranks(lexical)), 0.0)


def _standardised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = scores.std()
    centred: NDArray[np.float64] = scores - scores.mean()
    return centred / spread if spread > _SAME else np.zeros_like(scores)


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
