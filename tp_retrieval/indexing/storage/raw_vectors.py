"""Raw vectors as they lie in rows: in single precision, or in half precision with an exponent a row.

A row says itself which of them it is: one in half precision has an odd number of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.types import Float32Array

RawPrecision = Literal["float32", "float16"]
PRECISIONS: tuple[RawPrecision, ...] = ("float32", "float16")
"""How many bits a number of a raw vector takes. The exponent of a row keeps float16 from overflowing."""

_TOP = 15  # the largest number of a row is below two to this power, which float16 holds
_MOST = 2.0**_TOP - 16  # the largest number of float16 below that; the next one times two to the 113th would be infinite
_LEAST = -128  # the least exponent of a signed byte; below it lie float32's subnormal numbers


class RowWidths(NamedTuple):
    """The numbers of a raw vector of which all views were read, and of one without those that are read of a sample."""

    whole: int
    partial: int

    def sizes(self) -> dict[int, tuple[int, RawPrecision]]:
        """Return the numbers and the precision of a row by its bytes."""
        return {_size(width, precision): (width, precision) for width in self for precision in PRECISIONS}


def encoded(vectors: Float32Array, precision: RawPrecision, widths: RowWidths) -> list[bytes]:
    """Return rows `(n, whole width)` as bytes; views that were not read, which are NaN, are left out."""
    if precision == "float32":
        rows = [row.tobytes() for row in vectors.astype("<f4", copy=False)]
    else:
        exponents, halves = _halved(vectors)
        signed = exponents.astype(np.int8)
        rows = [exponent.tobytes() + half.tobytes() for exponent, half in zip(signed, halves, strict=True)]
    unread = np.isnan(vectors[:, -1])
    return [row[: _size(widths.partial, precision)] if cut else row for row, cut in zip(rows, unread, strict=True)]


def decoded(rows: Sequence[bytes], widths: RowWidths) -> Float32Array:
    """Return rows of bytes, of the `sizes` that there are, as vectors `(n, whole width)`; NaN where a view was not read."""
    vectors = np.full((len(rows), widths.whole), np.nan, dtype=np.float32)
    for size, (width, precision) in widths.sizes().items():
        chosen = [i for i, row in enumerate(rows) if len(row) == size]
        if chosen:
            vectors[chosen, :width] = _numbers(b"".join([rows[i] for i in chosen]), width, precision)
    return vectors


def rounded(vectors: Float32Array, precision: RawPrecision) -> Float32Array:
    """Return vectors `(n, width)` as they will be read again."""
    if precision == "float32":
        return vectors
    exponents, halves = _halved(vectors)
    return np.ldexp(halves.astype(np.float32), exponents)


def _size(width: int, precision: RawPrecision) -> int:
    return 4 * width if precision == "float32" else 1 + 2 * width


def _halved(vectors: Float32Array) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    """Return an exponent for each row, `(n, 1)`, and the numbers divided by two to its power."""
    largest = np.abs(np.nan_to_num(vectors)).max(axis=1, keepdims=True)
    exponents = np.maximum(np.frexp(largest)[1] - _TOP, _LEAST).astype(np.int32)
    return exponents, np.ldexp(vectors, -exponents).clip(-_MOST, _MOST).astype("<f2")


def _numbers(data: bytes, width: int, precision: RawPrecision) -> Float32Array:
    if precision == "float32":
        return np.frombuffer(data, dtype="<f4").reshape(-1, width)
    table = np.frombuffer(data, dtype=[("exponent", "i1"), ("numbers", "<f2", (width,))])
    return np.ldexp(table["numbers"].astype(np.float32), table["exponent"].astype(np.int32)[:, None])
