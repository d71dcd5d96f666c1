"""Affine maps of raw vectors, fitted on a corpus, and raw views combined into one unit vector. numpy only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.embedding.maps import within
from tp_retrieval.embedding.maps.within import ViewStretches
from tp_retrieval.errors import InputError
from tp_retrieval.types import Float32Array, Role, VectorView

Batches = Callable[[], Iterable[Float32Array]]
"""A function that returns an iterator over the raw vectors `(n, width)` in batches."""

PairedBatches = Callable[[], Iterable[tuple[Float32Array, Float32Array]]]
"""A function that returns an iterator over the raw vectors of two views of the same documents in batches."""

_FEWEST = 64  # directions below which whitening loses against centring
_NAMES = re.compile(r"none|center|(abtt|whiten|within):[1-9]\d*")
NAMES = "none, center, abtt:K, whiten:D or within:K"
"""The maps by name, for messages."""

_PENALTY = 1.0  # of ridge regression, in units of a standardised component's variance; 0.3 and 3 measured alike
_ROUNDING = 1e-5  # spread, as a share of the largest mean, below which vectors differ by rounding alone
_SAME = 0.999  # cosine of one text's vectors in bfloat16, in different batches
_EPSILON = 1e-3  # share of the largest eigenvalue added before whitening; 1e-4 and 1e-2 measured worse


@dataclass(frozen=True)
class AffineMap:
    """The map `x` to `(x - mean) @ matrix`, `(n, width)` to `(n, kept)`; without mean or matrix where they are None.

    `query_mean` is subtracted from queries in place of `mean`, where they lie elsewhere. `x` to `(x - source_mean) @
    source_matrix + source_offset` is a second map, from the raw vectors of the first view to mapped ones of this view: for
    documents that were not read for it, of which the raw vectors are NaN.
    """

    mean: Float32Array | None = None
    matrix: Float32Array | None = None
    query_mean: Float32Array | None = None
    source_mean: Float32Array | None = None
    source_matrix: Float32Array | None = None
    source_offset: Float32Array | None = None

    @classmethod
    def fit(cls, postprocess: str, batches: Batches, stretches: ViewStretches | None = None) -> AffineMap:
        """Fit `none`, `center`, `abtt:K`, `whiten:D` or `within:K` on raw vectors, in float64 and one batch in memory.

        `abtt:K` removes the K principal directions after centring (Mu and Viswanath, ICLR 2018, arXiv 1702.01417).
        `whiten:D` keeps the first D and divides each by its standard deviation (Su et al. 2021, arXiv 2103.15316).
        `within:K` keeps K directions in which documents differ more than their `stretches` (`within.directions`).
        Where the vectors hardly differ, or by so little or so much that float32 can't hold the matrix, the map only
        centres; `fitted` names it. Raises `InputError` if there are fewer vectors than `rows_needed`.
        """
        kind, _, number = postprocess.partition(":")
        if kind == "none":
            return cls()
        count, mean, covariance = _moments(batches)
        centring = cls(mean.astype(np.float32))
        if count < rows_needed(postprocess, len(mean)):
            needed = rows_needed(postprocess, len(mean))
            raise InputError(f"postprocess: {postprocess!r} needs {needed} vectors, got {count}")
        if kind == "center":
            return centring
        if kind == "within":
            return cls._within(centring, count, covariance, stretches, int(number))
        values, directions = np.linalg.eigh(covariance)  # ascending
        if np.sqrt(max(values[-1], 0.0)) <= _ROUNDING * np.abs(mean).max():
            return centring  # the map would amplify rounding
        top = _with_sign(directions[:, ::-1][:, : int(number)])
        if kind == "abtt":
            if int(number) >= len(mean):
                raise InputError(f"postprocess: {postprocess!r} would remove all {len(mean)} directions")
            matrix = np.eye(len(mean)) - top @ top.T
        else:
            kept = values[::-1][: int(number)].clip(min=0.0)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                matrix = top / np.sqrt(kept + _EPSILON * kept[0])
        with np.errstate(over="ignore"):
            map_ = cls(centring.mean, matrix.astype(np.float32))
        return map_ if map_.finite else centring

    @classmethod
    def _within(
        cls,
        centring: AffineMap,
        count: int,
        covariance: NDArray[np.float64],
        stretches: ViewStretches | None,
        kept: int,
    ) -> AffineMap:
        if stretches is None or stretches.count < within.FEWEST:
            raise InputError(f"postprocess: 'within:{kept}' needs stretches of {within.FEWEST} documents")
        mean = centring.mean
        if stretches.asymmetric:
            centring = cls(mean, query_mean=stretches.mean())
        matrix, spread = within.directions(covariance, stretches, min(kept, count - 1))
        spread = min(spread, float(np.sqrt(np.diag(covariance).max())))
        if mean is None or spread <= _ROUNDING * np.abs(mean).max():
            return centring  # the map would amplify rounding
        with np.errstate(over="ignore"):
            map_ = cls(mean, _with_sign(matrix).astype(np.float32), centring.query_mean)
        return map_ if map_.finite else centring

    def with_prediction(self, pairs: PairedBatches) -> AffineMap:
        """Return the map with a prediction from another view: a ridge regression of the unit vectors that this map gives.

        `pairs` are the raw vectors of the other view and of this one, of the same documents. Components of the other view
        are standardised, and the penalty is 1 in units of their variance.
        """

        def joint() -> Iterator[Float32Array]:
            for source, raw in pairs():
                yield np.concatenate([source, unit(self(raw))], axis=1)

        width = next(source.shape[1] for source, _ in pairs())
        _, mean, covariance = _moments(joint)
        spread = np.sqrt(np.diag(covariance)[:width].clip(min=0.0))
        scale = np.divide(1.0, spread, out=np.zeros(width), where=spread > _ROUNDING * np.abs(mean[:width]))
        standardised = scale[:, None] * covariance[:width] * np.concatenate([scale, np.ones(len(mean) - width)])
        weights = np.linalg.solve(standardised[:, :width] + _PENALTY * np.eye(width), standardised[:, width:])
        with np.errstate(over="ignore"):
            source_mean, offset = mean[:width].astype(np.float32), mean[width:].astype(np.float32)
            matrix = (scale[:, None] * weights).astype(np.float32)
        map_ = replace(self, source_mean=source_mean, source_matrix=matrix, source_offset=offset)
        return map_ if map_.finite else self

    def predict(self, source: Float32Array) -> NDArray[np.float64]:
        """Return mapped vectors `(n, kept)` by the raw ones of the first view; zeros where nothing predicts them."""
        if self.source_mean is None or self.source_matrix is None or self.source_offset is None:
            return np.zeros((len(source), 1))
        return AffineMap(self.source_mean, self.source_matrix)(source) + self.source_offset

    @property
    def finite(self) -> bool:
        """Whether every number of the map is finite."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays().values())

    def fitted(self, postprocess: str) -> str:
        """Return the name of the map that was fitted where `postprocess` was asked for: that, or `center`."""
        return "center" if self.mean is not None and self.matrix is None else postprocess

    def arrays(self) -> dict[str, Float32Array]:
        """Return the fitted arrays by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def digest(self) -> str:
        """Return a digest of the fitted arrays."""
        return hashlib.sha256(b"".join(array.tobytes() for array in self.arrays().values())).hexdigest()

    def __call__(self, vectors: Float32Array, role: Role = "document") -> NDArray[np.float64]:
        """Return the mapped vectors `(n, kept) float64`.

        In float32 a row's sums depend on how many rows are beside it, on some processors; and they may overflow.
        """
        mean = self.query_mean if role == "query" and self.query_mean is not None else self.mean
        mapped: NDArray[np.float64] = vectors.astype(np.float64)
        if mean is not None:
            mapped -= mean
        return mapped if self.matrix is None else mapped @ self.matrix.astype(np.float64)

    def width(self, width: int) -> int:
        """Return the width of mapped vectors, given that of raw ones."""
        return width if self.matrix is None else self.matrix.shape[1]


def is_map(postprocess: object) -> bool:
    """Return whether a value is the name of a map."""
    return isinstance(postprocess, str) and _NAMES.fullmatch(postprocess) is not None


def rows_needed(postprocess: str, width: int) -> int:
    """Return the fewest vectors a map is fitted on.

    `whiten:D` takes twice as many as the directions it keeps: on the Python FAQ whiten:256 lost ten points of nDCG@10
    against centring when fitted on 257 vectors, and drew level at 512.
    """
    kind, _, number = postprocess.partition(":")
    directions = min(int(number or 0), width)
    return {"none": 0, "center": 2, "abtt": directions + 2, "within": within.FEWEST}.get(kind, 2 * directions)


def attainable(postprocess: str, width: int, count: int, with_stretches: int = 0) -> str:
    """Return the map to fit on `count` vectors: `postprocess`, or the nearest one that needs no more than those.

    `within:K` also needs documents with several stretches; without them it is `whiten:K`.

    For `whiten:D` that is whitening with the largest power of two of directions that half of the vectors allow, from 64
    on, and else `center`. Two views whitened so beat the same two centred from 128 vectors on: by 8, 1 and 1 points of
    dense nDCG@10 on the Python FAQ, Cranfield and SciFact at 128, by 20, 4 and 11 at 256; at 100 they lose on all three.
    """
    if postprocess.startswith("within") and with_stretches < within.FEWEST:
        postprocess = postprocess.replace("within", "whiten")
    if count >= rows_needed(postprocess, width):
        return postprocess
    directions = 2 ** int(np.log2(max(count // 2, 1)))
    return f"whiten:{directions}" if postprocess.startswith("whiten") and directions >= _FEWEST else "center"


def split(raw: Float32Array, views: Sequence[VectorView]) -> list[Float32Array]:
    """Cut raw vectors `(n, sum of widths)` into their views."""
    parts: list[Float32Array] = np.split(raw, np.cumsum([view.width for view in views])[:-1], axis=1)
    return parts


def unit(vectors: NDArray[np.floating[Any]]) -> Float32Array:
    """Return the rows at L2 length 1 (computed in float64); rows of zeros are unchanged."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: Float32Array = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return scaled


def same_vectors(first: Float32Array, second: Float32Array) -> bool:
    """Return whether rows are equal but for the rounding of bfloat16."""
    cosines = (unit(first).astype(np.float64) * unit(second)).sum(axis=1)
    return bool((cosines > _SAME).all())


def fit_nearest(postprocess: str, vectors: Float32Array, stretches: ViewStretches | None = None) -> AffineMap:
    """Fit a map on vectors `(n, width)` and stretches, or the nearest one that so few allow, as `attainable` says."""
    count, width = vectors.shape
    name = attainable(postprocess, width, count, 0 if stretches is None else stretches.count)
    return AffineMap.fit(name, lambda: [vectors], stretches)


def fit_views(
    raw: Float32Array, views: Sequence[VectorView], stretches: Mapping[int, ViewStretches] | None = None
) -> list[AffineMap]:
    """Fit each view's map on its part of raw vectors `(n, sum of widths)`; `InputError` if there are too few.

    `stretches` are those of the views that need some. A view that lacks them gets the nearest map, since texts of a few
    words have none.
    """
    of_views = stretches or {}
    return [
        fit_nearest(view.postprocess, part, of_views.get(i))
        if view.postprocess.startswith("within")
        else AffineMap.fit(view.postprocess, lambda part=part: [part])  # type: ignore[misc]
        for i, (view, part) in enumerate(zip(views, split(raw, views), strict=True))
    ]


def combine(
    raw: Float32Array, views: Sequence[VectorView], maps: Sequence[AffineMap], role: Role = "document"
) -> Float32Array:
    """Return raw views side by side `(n, sum of widths)` as unit vectors.

    Each view is mapped, scaled to length 1 times the square root of its weight and put beside the others; the whole is
    normalised. So the cosine of the whole is the weighted mean of the views' cosines.
    """
    heaviest = max(view.weight for view in views)
    raw_parts = split(raw, views)
    parts = [
        (unit(map_(part, role)) if view.sample is None else mapped_view(map_, part, raw_parts[0], role))
        * np.float32(np.sqrt(view.weight / heaviest))
        for view, map_, part in zip(views, maps, raw_parts, strict=True)
    ]
    return unit(np.concatenate(parts, axis=1))


def is_unread(raw: Float32Array) -> NDArray[np.bool_]:
    """Return which rows of a view `(n, width)` were not read: those that are NaN."""
    missing: NDArray[np.bool_] = np.isnan(raw[:, -1])
    return missing


def mapped_view(map_: AffineMap, raw: Float32Array, source: Float32Array, role: Role = "document") -> Float32Array:
    """Return a view mapped and of unit length, predicted from the raw vectors `source` of the first view where unread."""
    missing = is_unread(raw)
    if not missing.any():
        return unit(map_(raw, role))
    mapped = np.zeros((len(raw), map_.width(raw.shape[1])), dtype=np.float32)
    mapped[~missing] = unit(map_(raw[~missing], role))
    mapped[missing] = unit(map_.predict(source[missing]))
    return mapped


def _with_sign(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions of which the largest number is positive, so that equal data give equal ones."""
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return columns * np.where(largest < 0, -1.0, 1.0)


def _moments(batches: Batches) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Return the number, mean `(width,)` and covariance `(width, width)` of vectors that come in batches."""
    count = 0
    shift = total = products = np.zeros(0)
    for batch in batches():
        if not count:
            shift = batch.mean(axis=0, dtype=np.float64)  # close to the mean, so that no digits are lost
            total, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        centred = batch.astype(np.float64) - shift
        count += len(batch)
        total += centred.sum(axis=0)
        products += centred.T @ centred
    if not count:
        raise InputError("postprocess: nothing to fit on")
    offset = total / count
    return count, shift + offset, products / count - np.outer(offset, offset)
