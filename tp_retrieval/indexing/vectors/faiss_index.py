"""Unit vectors in FAISS, numbered by the store's `seq`.

Deletes are tombstones, whatever the kind of index: FAISS moves all rows behind a removed one, or can't remove at all. The
owner compacts the index when it is `crowded`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import CorruptIndexError, IndexAccessError, InputError, TPRetrievalError
from tp_retrieval.indexing.storage.meta import Tuning
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.vectors.kinds import (
    HELD_OUT,
    RECALL_AT,
    SPARE,
    Nearest,
    floor_of,
    perturbed,
    reason,
    space_of,
    tuned,
)
from tp_retrieval.indexing.vectors.rounded_rows import RoundedRows, RoundedScores, rounded_rows
from tp_retrieval.sqlite.atomic import atomic_write
from tp_retrieval.types import Float32Array

_TIE = 1e-6  # FAISS sums in float32, in an order that depends on a row's position
_GATHERED = 5_000  # rows up to which a filter's matches are scored one by one
_ROUNDED = 4_000  # the same where rounded rows tell which are worth it
_ROUNDED_SHARE = 50  # and this part of all rows, since looking further costs more the more there are
_FETCHED = 500  # the same where exact vectors come from the database
_WIDER = 2  # times as many candidates of a scan under a filter, which may have taken the nearest rows
_SIFTED = 256  # rows from which on float32 finds those that are worth an exact score
_UNLIKE = 0.001  # share of the rows that their codes tell least of, which are candidates of every search
_DRIFTED = 0.01  # share of such rows at which the codes no longer fit the corpus
_PART = 8_192  # rows scored at once
_SCAN_OF_MANY = 15  # FAISS's `implem`: at 1,000,000 x 384 3.3 ms in place of 5.6 ms, at 100,000 it loses by a half
_CACHE = 1 << 25  # bytes of codes from which on it wins
_TOGETHER = 256  # queries that FAISS compares at once
_TABLES = 1 << 27  # bytes that FAISS may compute beside what it reads, for product codes
_LOSSLESS = (faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexIVFFlat, faiss.IndexHNSWFlat)

os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))  # OpenMP's threads don't outlive a fork


Batches = Callable[[], Iterable[tuple[Seqs, Float32Array]]]
Rows = Callable[[Seqs], Float32Array]
"""A function that gives the exact unit vectors of rows."""


class Near(NamedTuple):
    """FAISS's scores `(n,)` and the places of rows `(n,)`, best first."""

    scores: Float32Array
    positions: NDArray[np.int64]

    def of(self, allowed: NDArray[np.bool_] | None, take: int) -> Near:
        """Return the first of them that are allowed; FAISS fills up with places of -1."""
        kept = self.positions >= 0
        if allowed is not None:
            kept &= allowed[self.positions]
        return Near(self.scores[kept][:take], self.positions[kept][:take])


class FaissIndex:
    """Unit vectors `(n, dimension) float32` by row number, searched by cosine.

    Search is exact, unless the index comes from `build`. Then a part of it finds candidates, which are scored exactly: by
    the vectors that FAISS holds beside their codes (a factory string that ends in "RFlat"), or by those of `exact`. Where
    it holds rounded rows, these say which candidates are worth an exact score; and rows unlike those that the codes were
    made from, of which the codes tell little, are candidates of every search. `rounded` has such rows and no codes yet: a
    quarter of the memory, for the time until codes are made.
    """

    def __init__(self, dimension: int, exact: Rows, *, rounded: bool = False) -> None:
        self.dimension = dimension
        self.tuning: Tuning | None = None
        self._exact = exact
        self._adopt(faiss.IndexIDMap(rounded_rows(dimension) if rounded else faiss.IndexFlatIP(dimension)))

    def _adopt(self, index: Any) -> None:
        """Take an index with row numbers; a negative one marks a row that its codes tell little of."""
        self._index = index
        self._whole = faiss.downcast_index(index.index)
        is_refined = isinstance(self._whole, faiss.IndexRefine)
        self._inner = faiss.downcast_index(self._whole.base_index) if is_refined else self._whole
        held = faiss.downcast_index(self._whole.refine_index) if is_refined else self._whole
        self._flat = held if isinstance(held, faiss.IndexFlat) else None
        self._rounded = RoundedRows(held) if RoundedRows.are(held) else None
        self.lossless = self._flat is not None or type(self._inner) in _LOSSLESS
        self._selects = self._rounded is None  # a scan of packed codes takes no filter
        numbers = faiss.vector_to_array(index.id_map).astype(np.int64)
        self._seqs = np.abs(numbers)
        self._unlike = np.flatnonzero(numbers < 0)
        self._alive = np.ones(len(self._seqs), dtype=bool)
        self._forget_filter()

    def _forget_filter(self) -> None:
        self._asked_among: Seqs | None = None
        self._asked_allowed = np.zeros(0, dtype=bool)

    @property
    def _coded(self) -> bool:
        return self._inner is not self._whole

    def __len__(self) -> int:
        return int(np.count_nonzero(self._alive))

    @property
    def seqs(self) -> Seqs:
        """The row numbers, ascending."""
        return self._seqs if self._alive.all() else cast("Seqs", self._seqs[self._alive])

    @property
    def crowded(self) -> bool:
        """Whether more than a fifth of the rows are tombstones."""
        return 5 * (len(self._alive) - len(self)) > len(self._alive)

    @property
    def drifted(self) -> bool:
        """Whether so many rows are unlike those which the codes were made from that these should be made anew."""
        return len(self._unlike) > max(_SIFTED, _DRIFTED * len(self._alive))

    # -- building

    @classmethod
    def build(
        cls,
        factory: str,
        sample: Float32Array,
        batches: Batches,
        exact: Rows,
        target_recall: float,
        queries: Float32Array | None = None,
    ) -> FaissIndex:
        """Train an index on a sample `(n, dimension)`, fill it with all rows, and tune it to a recall.

        It is tuned with earlier `queries` `(m, dimension)`, if any, and with points near the first rows of the sample,
        which are held out from training; exact search is the ground truth. Raises `InputError` if FAISS can't build it.
        """
        self = cls(sample.shape[1], exact)
        held_out, rest = sample[:HELD_OUT], sample[HELD_OUT:]
        points = perturbed(held_out, rest)
        asked = points if queries is None else np.concatenate([points, queries])
        truth = Nearest(asked, RECALL_AT)
        try:
            inner = faiss.index_factory(self.dimension, factory, faiss.METRIC_INNER_PRODUCT)
            inner.train(rest)
            self._adopt(faiss.IndexIDMap(inner))
            for seqs, vectors in batches():
                truth.update(vectors, len(self._alive))
                for part in (slice(0, 1), slice(1, None)):  # so that a kind to which nothing can be added fails here
                    self.add(seqs[part], vectors[part])
            if not len(self):
                raise InputError(f"kind: {factory!r} can't be built, every row was deleted meanwhile")
            tuning = Tuning(factory, len(self), "", floor_of(factory, self.dimension).candidates, target_recall, 0.0)
            self.tuning = tuned(self._inner, asked, truth.positions, tuning, lossy=type(self._inner) not in _LOSSLESS)
            lists = faiss.try_extract_index_ivf(self._inner)
            if lists is not None:
                lists.set_direct_map_type(faiss.DirectMap.Array)  # so that rows can be read back
            self._mark_unlike()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, TPRetrievalError):
                raise
            raise InputError(f"kind: FAISS can't build {factory!r} for {len(rest)} vectors ({reason(error)})") from error
        return self

    def as_rounded(self) -> FaissIndex:
        """Return an index of the same rows, rounded."""
        other = FaissIndex(self.dimension, self._exact, rounded=True)
        for part in _parts(self.seqs):
            other.add(part, self.rows(part))
        return other

    def empty(self) -> None:
        """Remove all rows and keep the trained structure."""
        self._index.reset()
        self._adopt(self._index)

    def add(self, seqs: Seqs, vectors: Float32Array) -> None:
        """Add rows; numbers must be higher than any before, vectors finite."""
        if vectors.shape != (len(seqs), self.dimension):
            raise InputError(f"vectors of shape {vectors.shape}, expected {(len(seqs), self.dimension)}")
        if (np.diff(seqs, prepend=self._seqs[-1:]) <= 0).any():
            raise InputError("row numbers must ascend")
        if not np.isfinite(vectors).all():
            raise InputError("vectors must be finite")
        first, rows = len(self._seqs), np.ascontiguousarray(vectors)
        if self._rounded is None:
            self._whole.add(rows)
        else:
            if self._coded:
                self._inner.add(rows)
            self._rounded.add(rows)
            self._whole.ntotal = len(self._rounded)
        self._seqs = np.concatenate([self._seqs, seqs])
        self._alive = np.concatenate([self._alive, np.ones(len(seqs), dtype=bool)])
        self._forget_filter()
        if self._rounded is not None and self.tuning is not None and self.tuning.residual is not None and len(rows):
            unlike = first + np.flatnonzero(self._residuals(first, len(self._seqs)) > self.tuning.residual)
            self._unlike = np.concatenate([self._unlike, unlike])

    def _mark_unlike(self) -> None:
        """Find the rows that codes tell least of, and how little that is, so that later ones are known by it."""
        if self._rounded is None or self.tuning is None or faiss.try_extract_index_ivf(self._inner) is not None:
            return  # FAISS reads no codes back from lists that it read from a file
        residuals = self._residuals(0, len(self._seqs))
        border = float(np.quantile(residuals, 1 - _UNLIKE))
        self.tuning = replace(self.tuning, residual=border)
        self._unlike = np.flatnonzero(residuals > border)

    def _residuals(self, first: int, last: int) -> Float32Array:
        """Return the squared distances of rounded rows between two positions from what their codes stand for."""
        parts = []
        for begin in range(first, last, _PART):
            end = min(begin + _PART, last)
            coded = self._inner.reconstruct_n(begin, end - begin)
            parts.append(((coded - cast("RoundedRows", self._rounded).rows(slice(begin, end))) ** 2).sum(axis=1))
        return cast("Float32Array", np.concatenate(parts))

    def remove(self, seqs: Seqs) -> None:
        """Remove rows; unknown numbers are ignored."""
        self._alive[self._positions(np.intersect1d(seqs, self._seqs))] = False
        self._forget_filter()

    def _positions(self, seqs: Seqs) -> NDArray[np.int64]:
        positions = np.searchsorted(self._seqs, seqs)
        present = positions < len(self._seqs)
        present[present] = self._seqs[positions[present]] == seqs[present]
        if not present.all():
            raise CorruptIndexError(f"record {seqs[~present][0]} has no vector in the index that is held in memory")
        return positions

    # -- reading

    def rows(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors `(n, dimension)` of rows."""
        if not len(seqs):
            return np.zeros((0, self.dimension), dtype=np.float32)
        if not self.lossless:
            return self._exact(seqs)
        positions = self._positions(seqs)
        if self._flat is not None:
            held = faiss.rev_swig_ptr(self._flat.get_xb(), self._flat.ntotal * self.dimension)
            return cast("Float32Array", held.reshape(-1, self.dimension)[positions])
        return cast("Float32Array", self._inner.reconstruct_batch(positions))

    def held(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors `(n, dimension)` of rows, rounded where rounded ones are at hand."""
        return self.rows(seqs) if self._rounded is None else self._rounded.rows(self._positions(seqs))

    def scores(self, query: Float32Array, seqs: Seqs) -> NDArray[np.float64]:
        """Return the cosine of a unit vector `(dimension,)` with rows, to seven digits, which is what float32 holds.

        So equal rows score equally, in whatever order their products were summed.
        """
        cosines: NDArray[np.float64] = self.rows(seqs).astype(np.float64) @ query.astype(np.float64)
        return cosines.round(7).clip(-1.0, 1.0)

    def search(self, query: Float32Array, k: int, among: Seqs | None = None) -> list[tuple[int, float]]:
        """Return the k rows (of `among`, a part of `seqs`) nearest to a unit vector `(dimension,)` and their cosines.

        Best first; equal scores come in the order the rows were added, also at the border of the k. There are k, or all.
        """
        return self.search_many(query[None], k, among)[0]

    def search_many(self, queries: Float32Array, k: int, among: Seqs | None = None) -> list[list[tuple[int, float]]]:
        """Return what `search` does for each of some queries `(n, dimension)`, which FAISS compares together."""
        available = len(self) if among is None else len(among)
        k = min(k, available)
        if k < 1:
            return [[] for _ in queries]
        if self._rounded is not None and not self._coded:
            positions = np.flatnonzero(self._allowed(among))
            return [self._best(query, k, positions) for query in queries]
        if among is not None and available <= max(self._gathered, k):
            positions = self._positions(among)
            return [self._best(query, k, positions) for query in queries]
        allowed = None if among is None and self._alive.all() else self._allowed(among)
        wider = 1 if allowed is None or self._selects else _WIDER
        take = min(wider * self._candidates(k), len(self._alive))
        results = []
        for part in np.array_split(queries, len(queries) // _TOGETHER + 1):
            for query, near in zip(part, self._nearest(part, take, allowed, available), strict=True):
                positions = self._enough(query, k, take, near, allowed, available)
                results.append(self._best(query, k, positions))
        return results

    def _enough(
        self, query: Float32Array, k: int, take: int, nearest: Near, allowed: NDArray[np.bool_] | None, available: int
    ) -> NDArray[np.int64]:
        """Return the places of a query's candidates, looking further where a tie may go on beyond them.

        They are all, where a graph or a list left too many rows out of reach.
        """
        near, positions = nearest
        while not (len(positions) >= k and (len(positions) < take or near[-1] < near[k - 1] - _TIE)):
            if take == len(self._alive):
                break
            take = min(4 * take, len(self._alive))
            near, positions = self._nearest(query[None], take, allowed, available)[0]
        if len(positions) < k:
            return np.flatnonzero(self._alive if allowed is None else allowed)
        if len(self._unlike):
            unlike = self._unlike if allowed is None else self._unlike[allowed[self._unlike]]
            is_candidate = np.zeros(len(self._alive), dtype=bool)
            is_candidate[positions] = True
            positions = np.concatenate([positions, unlike[~is_candidate[unlike]]])
        return positions

    @property
    def _gathered(self) -> int:
        """The number of a filter's matches up to which each is scored."""
        if self._rounded is not None:
            return max(_ROUNDED, len(self._alive) // _ROUNDED_SHARE)
        return _GATHERED if self.lossless else _FETCHED

    def _candidates(self, k: int) -> int:
        if self.tuning is None:
            return k + SPARE
        return max(k * self.tuning.candidates + SPARE, floor_of(self.tuning.factory, self.dimension).rows)

    def _best(self, query: Float32Array, k: int, positions: NDArray[np.int64]) -> list[tuple[int, float]]:
        if len(positions) > (k if self._rounded is not None else k + _SIFTED):
            positions = self._sifted(query, k, positions)
        seqs = self._seqs[positions]
        scores = np.concatenate([self.scores(query, part) for part in _parts(seqs)])
        order = np.lexsort((seqs, -scores))[:k]
        return [(int(seqs[i]), float(scores[i])) for i in order]

    def _sifted(self, query: Float32Array, k: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows whose float32 or rounded score is among the k best, or so near that the exact one may be."""
        near, errors = (
            np.concatenate(of) for of in zip(*(self._near(query, part) for part in _parts(positions)), strict=True)
        )
        border = np.partition(near - errors, len(near) - k)[len(near) - k]
        kept = np.flatnonzero(near + errors >= border)
        return positions[kept]

    def _near(self, query: Float32Array, positions: NDArray[np.int64]) -> RoundedScores:
        """Return scores that tell which rows are worth an exact one, and their errors."""
        if self._rounded is not None:
            return self._rounded.scores(query, positions)
        return RoundedScores(self.rows(self._seqs[positions]) @ query, np.full(len(positions), _TIE, dtype=np.float32))

    def _allowed(self, among: Seqs | None) -> NDArray[np.bool_]:
        if among is None:
            return self._alive
        if among is not self._asked_among:  # the same filter often comes again
            self._asked_allowed = np.zeros(len(self._alive), dtype=bool)
            self._asked_allowed[self._positions(among)] = True
            self._asked_among = among
        return self._asked_allowed

    def _nearest(self, queries: Float32Array, take: int, allowed: NDArray[np.bool_] | None, available: int) -> list[Near]:
        """Return for each query FAISS's scores and places of up to `take` allowed rows, best first."""
        if allowed is None:
            return [Near(*of_query).of(None, take) for of_query in zip(*self._compared(queries, take), strict=True)]
        effort = len(allowed) / available
        if self._selects:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
            try:
                nearest = self._inner.search(queries, take, params=_parameters(self._inner, selector, effort))
                return [Near(*of_query).of(allowed, take) for of_query in zip(*nearest, strict=True)]
            except RuntimeError:
                self._selects = False
        return [self._passing(query, take, int(take * effort), allowed) for query in queries]

    def _compared(self, queries: Float32Array, take: int) -> Any:
        """Return FAISS's scores and places; of two ways to scan, by the one that is faster where codes fill the cache."""
        if isinstance(self._inner, faiss.IndexPQFastScan):
            large = len(queries) == 1 and self._inner.ntotal * self._inner.code_size > _CACHE
            self._inner.implem = _SCAN_OF_MANY if large else 0
        return self._inner.search(queries, take)

    def _passing(self, query: Float32Array, take: int, wide: int, allowed: NDArray[np.bool_]) -> Near:
        """Return what `_nearest` does, for a kind that can't select: look further and drop the others.

        Where the rows near to a query pass a filter less often than others, further still.
        """
        while True:
            wide = min(wide, len(allowed))
            scores, places = self._compared(query[None], wide)
            near = Near(scores[0], places[0]).of(allowed, take)
            if 2 * len(near.positions) >= take or wide == len(allowed):
                return near
            wide *= 4

    def seconds_a_search(self) -> float:
        """Return how long the fastest of five searches takes now."""
        took = []
        for row in self.rows(self.seqs[:5]):
            begin = time.perf_counter()
            self.search(row, RECALL_AT)
            took.append(time.perf_counter() - begin)
        return min(took)

    # -- snapshots

    def write(self, file: Path) -> None:
        """Write a snapshot atomically; raise `IndexAccessError` if that fails."""
        try:
            numbers = self._seqs.copy()
            numbers[self._unlike] *= -1
            faiss.copy_array_to_vector(numbers, self._index.id_map)
            self._index.ntotal = len(numbers)
            with atomic_write(file, scratch=file.with_suffix(".tmp")) as scratch:
                faiss.write_index(self._index, str(scratch))
        except (RuntimeError, OSError) as error:
            raise IndexAccessError(f"can't write {file}: {error}") from error

    @classmethod
    def read(cls, file: Path, dimension: int, exact: Rows, tuning: Tuning | None) -> FaissIndex | None:
        """Read a snapshot; None where it is missing or no index of this dimension."""
        try:
            index = _read(file)
        except (OSError, RuntimeError, MemoryError):
            return None
        if index.d != dimension or not isinstance(index, faiss.IndexIDMap):
            return None
        self = cls(dimension, exact)
        self._adopt(index)
        counts = {index.ntotal, self._inner.ntotal, len(self._seqs) if self._rounded is None else len(self._rounded)}
        if counts != {len(self._seqs)} or (np.diff(self._seqs) <= 0).any():
            return None
        self.tuning = tuning
        try:
            if tuning is not None and tuning.parameters:
                space_of(self._inner).set_index_parameters(self._inner, tuning.parameters)
        except RuntimeError:
            return None  # of another kind than the tuning
        return self


def _parts(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [values] if len(values) <= _PART else np.array_split(values, len(values) // _PART + 1)


def _parameters(index: Any, selector: Any, effort: float) -> Any:
    """Return search parameters for a filter; the fewer rows it keeps, the further an approximate index looks."""
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(faiss.downcast_index(index.index), selector, effort)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(int(np.ceil(index.nprobe * effort)), index.nlist))
    if isinstance(index, faiss.IndexHNSW):
        wide = int(np.ceil(2 * index.hnsw.efSearch * effort))  # in a graph, rows left out are in the way
        return faiss.SearchParametersHNSW(sel=selector, efSearch=min(wide, index.ntotal))
    return faiss.SearchParameters(sel=selector)


def _read(file: Path) -> Any:
    """Read an index; no array may be much larger than the file, but for the tables that FAISS computes for codes."""
    faiss.set_deserialization_vector_byte_limit(4 * file.stat().st_size + _TABLES)
    return faiss.read_index(str(file))


def read_all(file: Path) -> Float32Array:
    """Return all vectors `(n, dimension)` of a FAISS file in their order; raise `InputError` if it is none."""
    try:
        whole = index = _read(file)
        if isinstance(whole, faiss.IndexIDMap):  # FAISS would end the process: its row numbers are no positions
            index = faiss.downcast_index(whole.index)
        if isinstance(index, faiss.IndexIVF):
            index.make_direct_map()
        return np.asarray(index.reconstruct_n(0, index.ntotal), dtype=np.float32)
    except (OSError, RuntimeError, MemoryError) as error:
        raise InputError(f"{file}: no index whose vectors FAISS can read ({reason(error)})") from error
