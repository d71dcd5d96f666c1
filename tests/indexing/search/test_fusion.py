"""Fusion and MMR against their definitions, candidate by candidate."""

import statistics

import numpy as np
import pytest

from tp_retrieval.indexing.search import fusion


@pytest.fixture(params=range(4))
def candidates(request):
    """Dense and lexical scores of 20 candidates, some without a common word, some equal."""
    rng = np.random.default_rng(request.param)
    dense = rng.uniform(-1, 1, 20).round(2)
    lexical = np.where(rng.random(20) < 0.4, 0.0, rng.uniform(0, 12, 20).round(1))
    return dense, lexical


def z(scores):
    mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
    return [(score - mean) / deviation if deviation else 0.0 for score in scores]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_convex_is_the_weighted_sum_of_standard_scores(candidates, weight):
    dense, lexical = candidates
    want = [weight * d + (1 - weight) * w for d, w in zip(z(dense), z(lexical), strict=True)]
    assert fusion.convex(dense, lexical, weight) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_scores_that_differ_by_rounding_alone_count_nothing(noise):
    dense = np.full(5, 0.7) + noise * np.arange(5)
    lexical = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert fusion.convex(dense, lexical, 0.9) == pytest.approx(0.1 * np.array(z(lexical)), abs=1e-12)


def test_the_order_of_convex_does_not_depend_on_scale_and_offset(candidates):
    dense, lexical = candidates
    want = fusion.convex(dense, lexical, 0.4)
    assert fusion.convex(7 * dense - 3, 0.1 * lexical + 5, 0.4) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_reciprocal_rank_is_cormack_s_with_weights_and_no_lexical_rank_without_a_word(candidates, weight):
    dense, lexical = candidates
    by_dense = sorted(range(20), key=lambda i: -dense[i])
    by_lexical = sorted(range(20), key=lambda i: -lexical[i])
    want = []
    for i in range(20):
        score = weight / (60 + 1 + by_dense.index(i))
        if lexical[i] > 0:
            score += (1 - weight) / (60 + 1 + by_lexical.index(i))
        want.append(score)
    assert fusion.reciprocal_rank(dense, lexical, weight) == pytest.approx(want, abs=1e-15)


def greedy(relevance, vectors, k, weight):
    chosen = []
    while len(chosen) < min(k, len(vectors)):
        values = {}
        for i in range(len(vectors)):
            if i not in chosen:
                similarity = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
                values[i] = round(weight * relevance[i] - (1 - weight) * similarity, 7)
        chosen.append(max(values, key=values.get))
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("k", [0, 1, 5, 12, 40])
def test_mmr_is_the_greedy_choice(weight, k):
    rng = np.random.default_rng(k)
    vectors = rng.standard_normal((12, 4)) * [3, 1, 1, 1]
    vectors[7] = vectors[3]  # a duplicate
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    relevance = rng.uniform(-1, 1, 12)
    assert fusion.mmr(relevance, vectors, k, weight) == greedy(relevance, vectors, k, weight)


def test_mmr_prefers_what_points_away_over_what_is_unrelated():
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    assert fusion.mmr(np.array([0.9, 0.5, 0.5]), vectors, 3, 0.5) == [0, 2, 1]


def test_mmr_keeps_the_order_of_equal_values():
    vectors = np.eye(5, dtype=np.float32)
    assert fusion.mmr(np.full(5, 0.5) + 1e-9 * np.arange(5), vectors, 5, 0.5) == [0, 1, 2, 3, 4]


def test_scaled_is_zero_for_the_lowest_and_one_for_the_highest(candidates):
    _, lexical = candidates
    low, high = min(lexical), max(lexical)
    assert fusion.scaled(lexical) == pytest.approx([(score - low) / (high - low) for score in lexical], abs=1e-12)


@pytest.mark.parametrize("scores", [[], [3.0], [3.0, 3.0 + 1e-8]])
def test_scaled_gives_one_to_all_where_none_is_higher(scores):
    assert fusion.scaled(np.array(scores)).tolist() == [1.0] * len(scores)


def test_no_candidates_fuse_to_none():
    nothing = np.zeros(0)
    with np.errstate(all="ignore"):
        assert fusion.reciprocal_rank(nothing, nothing, 0.5).tolist() == []
    assert fusion.mmr(nothing, np.zeros((0, 4), dtype=np.float32), 3, 0.5) == []
