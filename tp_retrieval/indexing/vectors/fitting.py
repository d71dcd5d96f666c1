"""Linear maps of an index: fitted on all its rows as soon as there are enough, in the transaction that adds them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from tp_retrieval.embedding.maps.affine import NAMES, AffineMap, attainable, combine, is_map, is_unread, split
from tp_retrieval.embedding.maps.within import needed_views, sample_size, sampled_views
from tp_retrieval.errors import CorruptIndexError, InputError
from tp_retrieval.indexing.storage.fitted_maps import StoredMap
from tp_retrieval.indexing.storage.meta import IndexMeta
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.types import Float32Array, Role, VectorView

FIT_AT = 64
"""Rows from which on maps are fitted; fewer estimate a corpus's mean too badly. `within:K` is fitted earlier."""

_TRY_AGAIN = 2  # growth after which a map that the rows did not allow is tried again
_BATCH = 1024  # rows of a sample that are read at once
_GROWS_UNTIL = 1024  # rows up to which a map `within:K` is fitted anew each time the corpus has doubled


class UnusableMapsError(CorruptIndexError):
    """A fitted map holds NaN or infinity; it must be fitted anew."""


@dataclass(frozen=True)
class MappedViews:
    """An index's views with their fitted maps: the function from raw vectors to the compared ones."""

    views: tuple[VectorView, ...]
    maps: tuple[AffineMap, ...]

    @property
    def dimension(self) -> int:
        """Components of a compared vector."""
        return sum(map_.width(view.width) for map_, view in zip(self.maps, self.views, strict=True))

    def digest(self) -> str:
        """Return a digest of the maps: vectors mapped under different ones can't be compared."""
        return hashlib.sha256("\n".join(map_.digest() for map_ in self.maps).encode()).hexdigest()[:16]

    def __call__(self, raw: Float32Array, role: Role = "document") -> Float32Array:
        """Return raw vectors `(n, sum of widths)` mapped, weighted and of unit length, `(n, dimension) float32`.

        Raises `CorruptIndexError` for stored vectors of another length.
        """
        if raw.shape[1] != sum(view.width for view in self.views):
            raise CorruptIndexError(f"vectors of {raw.shape[1]} numbers are stored, the index's views have another width")
        return combine(raw, self.views, self.maps, role)


def mapped_views(store: Store) -> MappedViews:
    """Return an index's views with its fitted maps, before the first fit without maps.

    Raises `UnusableMapsError` for a map that is not finite, as version 0.1.0 stored where all rows were equal.
    """
    views, stored = store.meta.read().views, store.maps.all()
    if stored and (
        len(stored) != len(views) or not all(_fits(map_, view, views[0]) for map_, view in zip(stored, views, strict=True))
    ):
        raise CorruptIndexError(f"{store.file}: the fitted maps are not those of the index's views")
    fitted = tuple(AffineMap(**map_.arrays) for map_ in stored)
    if not all(map_.finite for map_ in fitted):
        raise UnusableMapsError(f"{store.file}: a fitted map holds NaN or infinity; opening the index fits it anew")
    return MappedViews(views, fitted or (AffineMap(),) * len(views))


def fit(store: Store) -> None:
    """Fit every view's map on all rows, inside a transaction.

    A map that needs more rows than there are falls back to a smaller one, and below `FIT_AT` rows to none; one that the
    rows do not allow, since they hardly differ, falls back to `center`.
    """
    count, meta = len(store.documents), store.meta.read()
    views, stretches = meta.views, store.stretches.of_views(meta.views)
    read = store.documents.count_wholly_read() if sampled_views(views) else count
    tried, fitted = _attainable(views, count, read, {i: of_view.count for i, of_view in stretches.items()}), []
    for i, postprocess in enumerate(tried):
        map_ = AffineMap.fit(postprocess, partial(_raw_view, store, views, i), stretches.get(i))
        if i in sampled_views(views) and read:
            map_ = map_.with_prediction(partial(_first_and_view, store, views, i))
        fitted.append(StoredMap(map_.fitted(postprocess), count, map_.arrays()))
    store.meta.write(replace(meta, maps_tried=tuple(tried)))
    store.set_maps(fitted)


def fallbacks(store: Store, unread: Mapping[int, int]) -> list[str]:
    """Return a sentence for each view whose rows do not allow the map that was tried, or that lacks stretches.

    `unread` is what `unread_counts` returns.
    """
    meta = store.meta.read()
    lesser = [
        f"view {i}: {tried} can't be fitted on these {stored.fitted_on} documents, whose vectors hardly differ or pass "
        f"float32's range; {stored.postprocess} was, and is tried again at {_TRY_AGAIN * stored.fitted_on} or by rebuild"
        for i, (stored, tried) in enumerate(_with_tried(store, meta))
        if stored.postprocess != tried
    ]
    return lesser + [
        f"view {i}: {meta.views[i].postprocess} is fitted on stretches of documents; {count} more must be read by the "
        "model, which rebuild does"
        for i, count in unread.items()
    ]


def unread_counts(store: Store) -> dict[int, int]:
    """Return how many documents lack stretches, for each view of the index that lacks most of its sample."""
    return dict(Counter(view for views in unread_rows(store, store.meta.read().views).values() for view in views))


def unread_rows(store: Store, views: Sequence[VectorView]) -> dict[int, frozenset[int]]:
    """Return the rows whose stretches must be read, each with the views that lack most of their sample.

    Their vectors were given, or were embedded before the index had such a map. Reads every text if there may be some.
    """
    rows, read = len(store.documents), store.stretches.read_counts()
    if all(2 * read.get(view, 0) >= min(rows, sample_size(views[view])) for view in needed_views(views)):
        return {}
    missing = store.stretches.missing(views)  # equal texts count once
    counts = Counter(view for of_row in missing.values() for view in of_row)
    lacking = {view for view, count in counts.items() if count > read.get(view, 0)}
    return {seq: of_row & lacking for seq, of_row in missing.items() if of_row & lacking}


def fit_if_due(store: Store) -> None:
    """Fit the maps if there are rows enough by now for better ones, inside a transaction."""
    meta = store.meta.read()
    views = meta.views
    if all(view.postprocess == "none" and view.sample is None for view in views):
        return
    count, wanted = len(store.documents), [view.postprocess for view in views]
    tried = _with_tried(store, meta)
    have = [tried_ if count < _TRY_AGAIN * stored.fitted_on else stored.postprocess for stored, tried_ in tried]
    have = have or ["none"] * len(views)
    counts = store.stretches.counts() if needed_views(views) else {}
    read = min((store.stretches.read_counts().get(i) or count for i in sampled_views(views)), default=count)
    better = _attainable(views, count, read, counts)
    grown = any(
        stored.postprocess.startswith("within")
        and _TRY_AGAIN * stored.fitted_on <= count
        and stored.fitted_on < _GROWS_UNTIL
        for stored, _ in tried
    )
    unpredicted = not tried and read < count
    if (
        grown
        or unpredicted
        or any(h not in (b, full) and _effort(b) > _effort(h) for h, b, full in zip(have, better, wanted, strict=True))
    ):
        fit(store)


def with_maps(views: Sequence[VectorView], postprocess: str | Sequence[str]) -> list[VectorView]:
    """Return views with other maps: one for all of them, or one each."""
    maps = [postprocess] * len(views) if isinstance(postprocess, str) else list(postprocess)
    if len(maps) != len(views):
        raise InputError(f"postprocess: {len(maps)} maps for {len(views)} views; give one, or one a view")
    for map_ in maps:
        if not is_map(map_):
            raise InputError(f"postprocess: {map_!r} must be {NAMES}")
    return [replace(view, postprocess=map_) for view, map_ in zip(views, maps, strict=True)]


def _attainable(views: Sequence[VectorView], count: int, read: int, with_stretches: Mapping[int, int]) -> list[str]:
    """Return the map to fit of each view, by the numbers of rows and of those that have several stretches of it.

    `read` is the number of rows of which views were read that are read of a sample alone.
    """
    maps = []
    for i, view in enumerate(views):
        rows = min(read, view.sample) if view.sample is not None else count
        map_ = attainable(view.postprocess, view.width, rows, with_stretches.get(i, 0))
        maps.append(map_ if (count >= FIT_AT and rows > 1) or map_.startswith("within") else "none")
    return maps


def _with_tried(store: Store, meta: IndexMeta) -> list[tuple[StoredMap, str]]:
    """Return the fitted maps, each with the one that was tried, which version 0.1.0 did not store."""
    stored = store.maps.all()
    return list(zip(stored, meta.maps_tried or [map_.postprocess for map_ in stored], strict=False))


def _fits(stored: StoredMap, view: VectorView, first: VectorView) -> bool:
    """Return whether a stored map's arrays have the shapes of an affine map of a view, predicted from the first one."""
    arrays = stored.arrays
    matrix = arrays.get("matrix")
    return (
        arrays.keys() <= {field.name for field in fields(AffineMap)}
        and all(arrays[name].shape == (view.width,) for name in arrays.keys() & {"mean", "query_mean"})
        and (matrix is None or (matrix.ndim == 2 and len(matrix) == view.width))
        and _fits_source(arrays, view.width if matrix is None else matrix.shape[1], first)
    )


def _fits_source(arrays: Mapping[str, Float32Array], kept: int, first: VectorView) -> bool:
    """Return whether the arrays that predict a view of `kept` components from the first one have their shapes."""
    source = {name: array.shape for name, array in arrays.items() if name.startswith("source")}
    return source in ({}, {"source_mean": (first.width,), "source_matrix": (first.width, kept), "source_offset": (kept,)})


def _raw_view(store: Store, views: Sequence[VectorView], i: int) -> Iterator[Float32Array]:
    return (raw for _, raw in _first_and_view(store, views, i))


def _first_and_view(store: Store, views: Sequence[VectorView], i: int) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield the raw vectors of the first view and of view i, in batches.

    Of a view that is read of a sample they are the sample's, which does not depend on the order of adding; more documents
    may have been read. Where none has stretches, since vectors were given, they are those of all that were read.
    """
    batches: Iterable[Float32Array] = (raw for _, raw in store.documents.vectors())
    if i in sampled_views(views):
        sample = np.intersect1d(store.stretches.seqs_of(i), store.documents.seqs())
        parts_of_sample = np.array_split(sample, range(_BATCH, len(sample), _BATCH))
        batches = map(store.documents.vectors_of, parts_of_sample) if len(sample) else batches
    for raw in batches:
        parts = split(raw, views)
        read = ~is_unread(parts[i]) if i in sampled_views(views) else np.ones(len(raw), dtype=bool)
        if read.any():
            yield parts[0][read], parts[i][read]


def _effort(postprocess: str) -> tuple[int, int]:
    """Return the rank of a map: none, centring, whitening or removing directions, within; more directions being better."""
    kind, _, number = postprocess.partition(":")
    return {"none": 0, "center": 1, "within": 3}.get(kind, 2), int(number or 0)
