"""Affine maps of raw vectors, fitted on a corpus, and the way from raw views to one unit vector. numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tp_retrieval.errors import InputError
from tp_retrieval.types import Float32Array, VectorView

SUPPORTED = ("none", "center")


@dataclass(frozen=True)
class AffineMap:
    """Map `x` to `x - mean`; no mean is the identity."""

    mean: Float32Array | None = None

    @classmethod
    def fit(cls, postprocess: str, vectors: Float32Array) -> AffineMap:
        """Fit a map of the kind `none` or `center` on raw vectors `(n, width)`; accumulates in float64.

        A single vector is its own mean and would be mapped to zero, so `center` needs two.
        """
        if postprocess not in SUPPORTED:
            raise InputError(f"postprocess: {postprocess!r} must be one of {', '.join(SUPPORTED)}")
        if postprocess == "none":
            return cls()
        if len(vectors) < 2:
            raise InputError(f"postprocess: {postprocess!r} needs at least 2 vectors, got {len(vectors)}")
        return cls(vectors.mean(axis=0, dtype=np.float64).astype(np.float32))

    def arrays(self) -> dict[str, Float32Array]:
        """Return what was fitted, by name."""
        return {} if self.mean is None else {"mean": self.mean}

    def digest(self) -> str:
        """Return a digest of what was fitted."""
        return hashlib.sha256(b"".join(array.tobytes() for array in self.arrays().values())).hexdigest()

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """Return the mapped vectors `(n, width) float32`."""
        return vectors if self.mean is None else vectors - self.mean


def fit_maps(raw: Float32Array, views: Sequence[VectorView]) -> tuple[AffineMap, ...]:
    """Fit each view's map on raw views side by side `(n, sum of widths)`."""
    return tuple(AffineMap.fit(view.postprocess, part) for view, part in zip(views, split(raw, views), strict=True))


def split(raw: Float32Array, views: Sequence[VectorView]) -> list[Float32Array]:
    """Cut raw vectors `(n, sum of widths)` into their views."""
    parts: list[Float32Array] = np.split(raw, np.cumsum([view.width for view in views])[:-1], axis=1)
    return parts


def unit(vectors: Float32Array) -> Float32Array:
    """Return the rows at L2 length 1 (computed in float64); rows of zeros stay."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: Float32Array = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return scaled


def combine(raw: Float32Array, views: Sequence[VectorView], maps: Sequence[AffineMap]) -> Float32Array:
    """Turn raw views side by side `(n, sum of widths)` into unit vectors.

    Each view is mapped, scaled to length 1 times the square root of its weight and put beside the others; the whole is
    normalised. So the cosine of the whole is the weighted mean of the views' cosines.
    """
    parts = [
        unit(map_(part)) * np.float32(np.sqrt(view.weight))
        for view, map_, part in zip(views, maps, split(raw, views), strict=True)
    ]
    return unit(np.concatenate(parts, axis=1))
