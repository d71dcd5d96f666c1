"""The prediction of a view from the first one, against a ridge regression by least squares."""

import numpy as np
import pytest

from tp_retrieval.embedding.maps.affine import AffineMap, combine, unit
from tp_retrieval.types import VectorView

ROWS, WIDTH, KEPT = 200, 12, 5


@pytest.fixture
def correlated():
    """The first view of documents, and another that depends on it but for noise; the scales differ by component."""
    rng = np.random.default_rng(0)
    scales = 10.0 ** np.arange(-4, WIDTH - 4)
    first = (rng.normal(size=(ROWS, WIDTH)) * scales + 7 * scales).astype(np.float32)
    other = (first / scales) @ rng.normal(size=(WIDTH, WIDTH)) + 0.3 * rng.normal(size=(ROWS, WIDTH))
    return first, other.astype(np.float32)


def batched(*arrays):
    return lambda: zip(*(np.array_split(array, 7) for array in arrays), strict=True)


def by_least_squares(source, target, vectors):
    """Predict as ridge regression does: rows of the penalty are added to the standardised ones."""
    standardised = (source - source.mean(0)) / source.std(0)
    penalty = np.sqrt(len(source)) * np.eye(source.shape[1])
    centred = target - target.mean(0)
    rows = np.vstack([standardised, penalty]), np.vstack([centred, np.zeros((source.shape[1], target.shape[1]))])
    weights = np.linalg.lstsq(*rows, rcond=None)[0]
    return (vectors - source.mean(0)) / source.std(0) @ weights + target.mean(0)


@pytest.mark.parametrize("postprocess", ["center", f"whiten:{KEPT}"])
def test_a_prediction_is_a_ridge_regression_of_the_mapped_view(correlated, postprocess):
    first, other = correlated
    map_ = AffineMap.fit(postprocess, lambda: [other]).with_prediction(batched(first, other))
    expected = by_least_squares(first.astype(np.float64), unit(map_(other)).astype(np.float64), first.astype(np.float64))
    assert np.allclose(map_.predict(first), expected, atol=1e-4)
    cosines = (unit(map_.predict(first)) * unit(map_(other))).sum(axis=1)
    assert cosines.mean() > 0.9


def test_rows_that_were_read_are_mapped_and_the_others_predicted(correlated):
    first, other = correlated
    views = [VectorView(WIDTH, "none", 0.7), VectorView(WIDTH, "center", 0.3, sample=100)]
    map_ = AffineMap.fit("center", lambda: [other]).with_prediction(batched(first, other))
    raw = np.concatenate([first, other], axis=1)
    whole = combine(raw, views, [AffineMap(), map_])
    raw[1::2, WIDTH:] = np.nan
    combined = combine(raw, views, [AffineMap(), map_])
    assert np.array_equal(combined[::2], whole[::2])
    predicted = np.concatenate([unit(first) * np.sqrt(0.7), unit(map_.predict(first)) * np.sqrt(0.3)], axis=1)
    assert np.allclose(combined[1::2], predicted[1::2], atol=1e-6)
    assert np.allclose(np.linalg.norm(combined, axis=1), 1, atol=1e-6)


def test_without_a_prediction_an_unread_view_counts_nothing(correlated):
    first, other = correlated
    views = [VectorView(WIDTH), VectorView(WIDTH, sample=100)]
    raw = np.concatenate([first, np.full_like(other, np.nan)], axis=1)
    combined = combine(raw, views, [AffineMap(), AffineMap()])
    assert np.allclose(combined[:, :WIDTH], unit(first), atol=1e-6)
    assert not combined[:, WIDTH:].any()


def test_components_that_never_change_predict_nothing(correlated):
    first, other = correlated
    first[:, 3], first[:, 4] = 1e6, 0.0
    map_ = AffineMap.fit("center", lambda: [other]).with_prediction(batched(first, other))
    assert map_.finite
    assert not map_.source_matrix[3:5].any()
    assert map_.source_matrix[:3].any(axis=1).all()


def test_documents_with_equal_vectors_give_a_finite_prediction():
    equal = np.ones((20, WIDTH), dtype=np.float32)
    map_ = AffineMap.fit("center", lambda: [equal]).with_prediction(batched(equal, equal))
    assert np.isfinite(map_.predict(equal)).all()


def test_a_prediction_is_part_of_the_digest(correlated):
    first, other = correlated
    plain = AffineMap.fit("center", lambda: [other])
    assert plain.with_prediction(batched(first, other)).digest() != plain.digest()
