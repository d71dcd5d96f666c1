"""Raw vectors in rows: what is read is what was stored, but for the rounding of half precision."""

import numpy as np
import pytest

from tp_retrieval.indexing.storage.raw_vectors import RowWidths, decoded, encoded, rounded

WIDTHS = RowWidths(6, 4)


def drawn(count, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal((count, 6))).astype(np.float32)


def test_single_precision_is_kept_to_the_bit():
    vectors = drawn(5)
    rows = encoded(vectors, "float32", WIDTHS)
    assert {len(row) for row in rows} == {24}
    assert np.array_equal(decoded(rows, WIDTHS), vectors)
    assert rounded(vectors, "float32") is vectors


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e-3, 1.0, 7e4, 5e37])
def test_half_precision_rounds_each_number_to_eleven_bits_whatever_the_size_of_the_row(scale):
    vectors = drawn(200, scale)
    rows = encoded(vectors, "float16", WIDTHS)
    assert {len(row) for row in rows} == {13}
    read = decoded(rows, WIDTHS)
    near = np.abs(vectors) > 1e-6 * np.abs(vectors).max(axis=1, keepdims=True)
    assert (np.abs(read - vectors)[near] <= 2.0**-11 * np.abs(vectors)[near]).all()
    assert (np.abs(read - vectors) <= 2.0**-11 * np.abs(vectors).max(axis=1, keepdims=True)).all()
    assert np.array_equal(rounded(vectors, "float16"), read)
    assert np.array_equal(rounded(read, "float16")[near], read[near])


@pytest.mark.parametrize("row", [[0.0] * 6, [3.4028e38, -3.4028e38, 0, 1, 2, 3], [1e-40] * 6, [1e-45, 0, 0, 0, 0, 0]])
def test_the_ends_of_single_precision_stay_finite_and_near(row):
    vectors = np.array([row], dtype=np.float32)
    read = decoded(encoded(vectors, "float16", WIDTHS), WIDTHS)
    assert np.isfinite(read).all()
    assert np.abs(read - vectors).max() <= max(2.0**-11 * np.abs(vectors).max(), 1e-45)


def test_rows_of_both_precisions_and_both_widths_lie_side_by_side():
    vectors = drawn(4)
    vectors[1::2, 4:] = np.nan
    rows = [encoded(vectors[i : i + 1], "float16" if i > 1 else "float32", WIDTHS)[0] for i in range(4)]
    assert [len(row) for row in rows] == [24, 16, 13, 9]
    read = decoded(rows, WIDTHS)
    assert np.array_equal(read[:2], vectors[:2], equal_nan=True)
    assert np.array_equal(read[2:], rounded(vectors[2:], "float16"), equal_nan=True)
    assert np.isnan(read[1::2, 4:]).all()


def test_the_bytes_of_a_row_tell_its_width_and_precision():
    for whole in range(1, 40):
        for partial in range(1, whole + 1):
            sizes = RowWidths(whole, partial).sizes()
            assert len(sizes) == 2 * len({whole, partial})
