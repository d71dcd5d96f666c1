"""Maps against numpy's own decompositions."""

import numpy as np
import pytest

from tp_retrieval import InputError
from tp_retrieval.embedding.maps.affine import AffineMap, attainable, combine, rows_needed, unit
from tp_retrieval.types import VectorView


@pytest.fixture
def vectors():
    dice = np.random.default_rng(0)
    mixed = dice.normal(size=(300, 12)) @ dice.normal(size=(12, 12)) + 100 * dice.normal(size=12)
    return mixed.astype(np.float32)


def fit(postprocess, vectors, size=300):
    return AffineMap.fit(postprocess, lambda: (vectors[i : i + size] for i in range(0, len(vectors), size)))


def test_none_changes_nothing(vectors):
    assert (fit("none", vectors)(vectors) == vectors).all()


def test_center_takes_the_mean_away(vectors):
    got = fit("center", vectors)(vectors)
    assert got == pytest.approx(vectors - vectors.astype(np.float64).mean(axis=0), abs=1e-4)


def test_abtt_removes_the_principal_directions_and_nothing_else(vectors):
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    want = centred - centred @ directions[:3].T @ directions[:3]
    assert fit("abtt:3", vectors)(vectors) == pytest.approx(want, abs=1e-3)


def test_whiten_divides_the_first_directions_by_their_deviation(vectors):
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    variances = lengths**2 / len(vectors)
    want = centred @ directions[:5].T / np.sqrt(variances[:5] + 0.001 * variances[0])
    got = fit("whiten:5", vectors)(vectors)
    assert got.shape == (300, 5)
    assert np.abs(got) == pytest.approx(np.abs(want), abs=1e-3)  # a direction's sign is free
    assert got @ got.T == pytest.approx(want @ want.T, abs=1e-2)


def test_whiten_keeps_what_directions_there_are(vectors):
    assert fit("whiten:256", vectors)(vectors).shape == (300, 12)


@pytest.mark.parametrize("postprocess", ["center", "abtt:2", "whiten:6"])
def test_fitting_in_batches_is_fitting_at_once_and_the_same_every_time(vectors, postprocess):
    whole, parts = fit(postprocess, vectors), fit(postprocess, vectors, 77)
    assert whole.digest() == fit(postprocess, vectors).digest()
    for name, array in whole.arrays().items():
        assert parts.arrays()[name] == pytest.approx(array, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("postprocess", "needed"), [("none", 0), ("center", 2), ("abtt:3", 5), ("whiten:5", 10), ("whiten:256", 24)]
)
def test_too_few_vectors_are_refused_with_both_numbers(vectors, postprocess, needed):
    assert rows_needed(postprocess, 12) == needed
    if needed:
        fit(postprocess, vectors[:needed])
        with pytest.raises(InputError, match=f"needs {needed} vectors, got {needed - 1}"):
            fit(postprocess, vectors[: needed - 1])


def test_removing_every_direction_is_refused(vectors):
    assert fit("abtt:11", vectors)(vectors).std() > 0
    with pytest.raises(InputError, match="would remove all 12 directions"):
        fit("abtt:12", vectors)


def test_the_cosine_of_the_whole_is_the_weighted_mean_of_the_views_cosines(vectors):
    views = [VectorView(4, "center", 3.0), VectorView(8, "whiten:5", 1.0)]
    maps = [fit("center", vectors[:, :4]), fit("whiten:5", vectors[:, 4:])]
    whole = combine(vectors, views, maps)
    first, second = unit(maps[0](vectors[:, :4])), unit(maps[1](vectors[:, 4:]))
    assert whole.shape == (300, 9)
    assert whole @ whole.T == pytest.approx(0.75 * first @ first.T + 0.25 * second @ second.T, abs=1e-5)


def test_zeros_and_huge_values_become_finite_units():
    got = unit(np.array([[0, 0], [3e38, 3e38], [1e-38, 0]], dtype=np.float32))
    assert got == pytest.approx(np.array([[0, 0], [0.5**0.5, 0.5**0.5], [1, 0]]), abs=1e-6)


@pytest.mark.parametrize(
    ("postprocess", "width", "count", "fitted"),
    [
        ("whiten:256", 576, 512, "whiten:256"),
        ("whiten:256", 576, 511, "whiten:128"),
        ("whiten:256", 576, 256, "whiten:128"),
        ("whiten:256", 576, 255, "whiten:64"),
        ("whiten:256", 576, 128, "whiten:64"),
        ("whiten:256", 576, 127, "center"),
        ("whiten:100", 576, 199, "whiten:64"),
        ("whiten:256", 40, 80, "whiten:256"),
        ("abtt:3", 576, 4, "center"),
        ("abtt:3", 576, 5, "abtt:3"),
        ("center", 576, 2, "center"),
        ("none", 576, 0, "none"),
    ],
)
def test_with_fewer_vectors_than_it_needs_a_map_gives_way_to_a_smaller_one(postprocess, width, count, fitted):
    assert attainable(postprocess, width, count) == fitted
    AffineMap.fit(fitted, lambda: [np.random.default_rng(0).normal(size=(max(count, 1), width))])
