"""Unit vectors at 8 bits a number, which order candidates before the best are scored exactly.

Each row has its own step, the 127th part of its largest number, so that no row is clipped, however unlike the others. The
rounding moves a cosine by a twelfth of the step squared, at the square root: about 0.0004 at 512 dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from tp_retrieval.types import Float32Array

FACTORY = "Refine(SQ8_direct_signed)"
"""The end of the factory string of an index that holds such rows."""

_LARGEST = 127
_ZERO = 128  # the code of zero
_SURE = 4.0  # standard deviations of the rounding's error


class RoundedScores(NamedTuple):
    """Cosines `(n,)` and how far each may be from the exact one, `(n,)`."""

    cosines: Float32Array
    errors: Float32Array


def rounded_rows(dimension: int) -> Any:
    """Return an empty FAISS index of signed bytes."""
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)


class RoundedRows:
    """Rounded rows by position, in a FAISS index of signed bytes, so that they are part of its snapshot."""

    def __init__(self, held: Any) -> None:
        self._held = held

    @staticmethod
    def are(held: Any) -> bool:
        """Return whether a FAISS index holds such rows."""
        signed = faiss.ScalarQuantizer.QT_8bit_direct_signed
        return isinstance(held, faiss.IndexScalarQuantizer) and held.sq.qtype == signed

    def __len__(self) -> int:
        return int(self._held.ntotal)

    def add(self, vectors: Float32Array) -> None:
        """Append unit vectors `(n, dimension)`."""
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        self._held.add(np.rint(vectors * (_LARGEST / np.where(largest > 0, largest, 1))))

    def rows(self, positions: NDArray[np.int64] | slice) -> Float32Array:
        """Return rows as unit vectors `(n, dimension)`."""
        numbers, lengths = self._numbers(positions)
        numbers /= lengths[:, None]
        return numbers

    def scores(self, query: Float32Array, positions: NDArray[np.int64]) -> RoundedScores:
        """Return the cosines of a unit vector `(dimension,)` with rows."""
        numbers, lengths = self._numbers(positions)
        return RoundedScores(numbers @ query / lengths, _SURE / np.sqrt(12, dtype=np.float32) / lengths)

    def _numbers(self, positions: NDArray[np.int64] | slice) -> tuple[Float32Array, Float32Array]:
        """Return whole numbers `(n, dimension)`, and the length `(n,)` at which the row they stand for has length 1."""
        codes = faiss.rev_swig_ptr(self._held.codes.data(), self._held.codes.size()).reshape(-1, self._held.d)
        numbers = codes[positions].astype(np.float32)
        numbers -= _ZERO
        lengths = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        return numbers, cast("Float32Array", np.where(lengths > 0, lengths, 1))
