"""Fusion of dense and lexical scores, and maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.types import Float32Array

_ROUNDING = 1e-6  # scores that differ by less differ by rounding alone
_RANK_OFFSET = 60  # Cormack et al., SIGIR 2009


def fuse(
    dense: NDArray[np.floating],
    lexical: NDArray[np.floating],
    weight: float,
    candidates: int,
    *,
    fusion: str = "convex",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the positions of the fused candidates, best first, and their scores; equal scores keep their order.

    Candidates are the `candidates` rows of the highest dense and of the highest positive lexical scores; scores `(n,)` are
    of the same rows, `weight` is the dense share, `fusion` is "convex" or "reciprocal-rank".
    """
    lexical_best = best(lexical, candidates)
    pool = np.union1d(best(dense, candidates), lexical_best[lexical[lexical_best] > 0])
    method = convex if fusion == "convex" else reciprocal_rank
    fused = method(dense[pool].astype(np.float64), lexical[pool].astype(np.float64), weight)
    order = np.argsort(-fused, kind="stable")
    return pool[order], fused[order]


def best(scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the positions of the highest scores, best first; equal scores keep their order."""
    if 0 < 4 * count < len(scores):
        bound = np.partition(scores, -count)[-count]
        positions = np.flatnonzero(scores >= bound)
        return positions[np.argsort(-scores[positions], kind="stable")][:count]
    return np.argsort(-scores, kind="stable")[:count]


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


def mmr(relevance: NDArray[np.float64], vectors: Float32Array, k: int, weight: float) -> list[int]:
    """Return the positions of k candidates, each the one with the highest `w * relevance - (1 - w) * similarity`.

    Similarity is the highest cosine with one chosen before; `vectors` are unit `(n, dim)`, relevance `(n,)` is of the same
    scale. Carbonell and Goldstein, SIGIR 1998. Equal values keep their order.
    """
    chosen: list[int] = []
    nearest = np.zeros(len(vectors))
    free = np.ones(len(vectors), dtype=bool)
    while len(chosen) < min(k, len(vectors)):
        value = np.where(free, weight * relevance - (1 - weight) * nearest, -np.inf)
        chosen.append(int(np.argmax(value.round(7))))
        free[chosen[-1]] = False
        similarity = vectors.astype(np.float64) @ vectors[chosen[-1]].astype(np.float64)
        nearest = similarity if len(chosen) == 1 else np.maximum(nearest, similarity)
    return chosen


def scaled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores from 0 (the lowest) to 1 (the highest)."""
    low, high = scores.min(initial=np.inf), scores.max(initial=-np.inf)
    return (scores - low) / (high - low) if high - low > _ROUNDING else np.ones_like(scores)


def _standardised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = scores.std()
    centred: NDArray[np.float64] = scores - scores.mean()
    return centred / spread if spread > _ROUNDING else np.zeros_like(scores)


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
