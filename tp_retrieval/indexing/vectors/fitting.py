"""Maps of an index: fitted on all its rows, when there are rows enough, inside the transaction that brings them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tp_retrieval.embedding.maps.affine import AffineMap, attainable, combine, is_map, split
from tp_retrieval.errors import CorruptIndexError, InputError
from tp_retrieval.indexing.storage.meta import StoredMap
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.types import Float32Array, VectorView

FIT_AT = 64
"""Rows from which on maps are fitted; fewer say too little about where a corpus lies."""

_TRIED = "maps_tried"  # the meta record of the maps that were tried at the last fit, one a view
_TRY_AGAIN = 2  # growth after which a map that the rows did not allow is tried again


class UnusableMapsError(CorruptIndexError):
    """A fitted map holds NaN or infinity; it must be fitted anew."""


def views_of(store: Store) -> tuple[VectorView, ...]:
    """Return an index's views, with the maps it wishes for."""
    return tuple(VectorView(**view) for view in store.meta.get("views"))


@dataclass(frozen=True)
class MappedViews:
    """An index's views with the maps that are fitted now: what turns raw vectors into those that are compared."""

    views: tuple[VectorView, ...]
    maps: tuple[AffineMap, ...]

    @property
    def dimension(self) -> int:
        """Components of a compared vector."""
        return sum(map_.width(view.width) for map_, view in zip(self.maps, self.views, strict=True))

    def digest(self) -> str:
        """Return a digest of the maps: vectors mapped under different ones can't be compared."""
        return hashlib.sha256("\n".join(map_.digest() for map_ in self.maps).encode()).hexdigest()[:16]

    def __call__(self, raw: Float32Array) -> Float32Array:
        """Return raw vectors `(n, sum of widths)` mapped, weighted and of unit length, `(n, dimension) float32`."""
        return combine(raw, self.views, self.maps)


def mapped_views(store: Store) -> MappedViews:
    """Return an index's views with the maps it has fitted, before the first fit with none.

    Raises `UnusableMapsError` for a map that is not finite, as version 0.1.0 stored where all rows were equal.
    """
    views = views_of(store)
    fitted = tuple(AffineMap(**stored.arrays) for stored in store.maps.all())
    if not all(map_.finite for map_ in fitted):
        raise UnusableMapsError(f"{store.file}: a fitted map holds NaN or infinity; opening the index fits it anew")
    return MappedViews(views, fitted or (AffineMap(),) * len(views))


def fit(store: Store) -> None:
    """Fit every view's map on all rows, inside a transaction.

    A map that needs more rows than there are falls back to a smaller one, and below `FIT_AT` rows to none; one that the
    rows do not allow, since they hardly differ, falls back to `center`.
    """
    count, views = len(store.documents), views_of(store)
    tried, fitted = _attainable(views, count), []
    for i, postprocess in enumerate(tried):
        map_ = AffineMap.fit(postprocess, partial(_raw_view, store, views, i))
        fitted.append(StoredMap(map_.fitted(postprocess), count, map_.arrays()))
    store.set_maps(fitted)
    store.meta.set(_TRIED, tried)


def fallbacks(store: Store) -> list[str]:
    """Return a sentence for each view whose rows did not allow the map that was tried."""
    return [
        f"view {i}: {tried} can't be fitted on these {stored.fitted_on} documents, whose vectors hardly differ or pass "
        f"float32's range; {stored.postprocess} was, and is tried again at {_TRY_AGAIN * stored.fitted_on} or by rebuild"
        for i, (stored, tried) in enumerate(_with_tried(store))
        if stored.postprocess != tried
    ]


def fit_if_due(store: Store) -> None:
    """Fit the maps if there are now rows enough for better ones than there are, inside a transaction."""
    views = views_of(store)
    if all(view.postprocess == "none" for view in views):
        return
    count, wished = len(store.documents), [view.postprocess for view in views]
    before = _with_tried(store)
    have = [tried if count < _TRY_AGAIN * stored.fitted_on else stored.postprocess for stored, tried in before]
    have = have or ["none"] * len(views)
    want = _attainable(views, count)
    if any(h not in (w, full) and _effort(w) > _effort(h) for h, w, full in zip(have, want, wished, strict=True)):
        fit(store)


def with_maps(views: Sequence[VectorView], postprocess: str | Sequence[str]) -> list[VectorView]:
    """Return views with other maps: one for all of them, or one each."""
    wished = [postprocess] * len(views) if isinstance(postprocess, str) else list(postprocess)
    if len(wished) != len(views):
        raise InputError(f"postprocess: {len(wished)} maps for {len(views)} views; give one, or one a view")
    for map_ in wished:
        if not is_map(map_):
            raise InputError(f"postprocess: {map_!r} must be none, center, abtt:K or whiten:D")
    return [VectorView(view.width, map_, view.weight) for view, map_ in zip(views, wished, strict=True)]


def _attainable(views: Sequence[VectorView], count: int) -> list[str]:
    if count < FIT_AT:
        return ["none"] * len(views)
    return [attainable(view.postprocess, view.width, count) for view in views]


def _with_tried(store: Store) -> list[tuple[StoredMap, str]]:
    """Return the fitted maps, each with the one that was tried; version 0.1.0 did not note it."""
    stored = store.maps.all()
    tried = store.meta.get(_TRIED) or [one.postprocess for one in stored]
    return list(zip(stored, tried, strict=False))


def _raw_view(store: Store, views: Sequence[VectorView], i: int) -> Iterator[Float32Array]:
    return (split(raw, views)[i] for _, raw in store.documents.vectors())


def _effort(postprocess: str) -> tuple[int, int]:
    """Return how much a map makes of the rows: none, centring, whitening or removing directions, the more the better."""
    kind, _, number = postprocess.partition(":")
    return (["none", "center"].index(kind) if kind in ("none", "center") else 2), int(number or 0)
