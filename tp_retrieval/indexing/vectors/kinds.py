"""Kinds of vector index, their FAISS factory strings, and the tuning of the approximate ones to a recall."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from tp_retrieval.embedding.maps.affine import unit
from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.meta import Tuning
from tp_retrieval.indexing.vectors.rounded_rows import FACTORY as ROUNDED
from tp_retrieval.types import Float32Array

KINDS = ("auto", "flat", "scan", "hnsw", "ivf", "ivf-sq8", "ivf-pq")
"""Named kinds; any string of FAISS's index factory is a kind, too."""

TRAIN_AT = 10_000
"""Rows from which on an approximate index is built; fewer are searched exactly in a few milliseconds."""

RECALL_AT = 10
"""Recall is measured on this many nearest rows."""

SPARE = 16  # rows fetched beyond k, so that a tie at the border is usually seen at once
HELD_OUT = 256  # rows that recall is measured with
_SURE = 2.0  # standard errors between a measured recall and the one that is promised
_BYTES_OF_CODES = 1 << 26  # of a scan in which a code stands for two components; beyond, it stands for four
_MOST_CANDIDATES = 64  # rows rescored for each row asked for, at most


def check_kind(kind: str, dimension: int) -> None:
    """Raise `InputError` if a kind is neither a named one nor a string that FAISS's factory knows."""
    if kind in KINDS:
        return
    why = "it numbers its rows itself"
    try:
        if not isinstance(faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT), faiss.IndexIDMap):
            return
    except (RuntimeError, TypeError) as error:
        why = reason(error)
    raise InputError(f"kind: {kind!r} must be one of {', '.join(KINDS)}, or a FAISS factory string ({why})")


def factory_string(kind: str, dimension: int, count: int) -> str | None:
    """Return FAISS's factory string for a kind and so many rows; None for exact search."""
    if kind in ("auto", "flat"):
        return None
    lists = max(1, min(2 ** round(np.log2(2 * np.sqrt(count))), (count - HELD_OUT) // 40))
    codes = max(m for m in range(1, max(dimension // 8, 1) + 1) if dimension % m == 0)
    per_code = 2 if dimension * count <= _BYTES_OF_CODES * 4 else 4
    padded = -(-dimension // per_code) * per_code
    head = f"Pad{padded}," if padded > dimension else ""
    named = {
        "scan": f"{head}PQ{padded // per_code}x4fs,{ROUNDED}",
        "hnsw": "HNSW32",
        "ivf": f"IVF{lists},Flat",
        "ivf-sq8": f"IVF{lists},SQ8",
        "ivf-pq": f"IVF{lists},PQ{codes}x8np",
    }
    return named.get(kind, kind)


@dataclass(frozen=True)
class Floor:
    """The least that an index does: its recall, and the rows scored exactly, for each row asked for and in all."""

    recall: float = 0.0
    candidates: int = 1
    rows: int = 0


_OF_SCAN = Floor(recall=0.99, candidates=16, rows=512)
_OF_SHORT_SCAN = Floor(recall=0.99, candidates=128, rows=2048)
"""More candidates cost a scan little. Of 100,000 noised copies of real vectors, of 512 components, 512 candidates had all
the ten nearest where a code stands for two components, 2048 had 0.999 of them where it stands for four."""


def floor_of(factory: str, dimension: int) -> Floor:
    """Return the least that an index of a factory string does."""
    scan = re.search(rf"PQ(\d+)x4fs,{re.escape(ROUNDED)}$", factory)
    if scan is None:
        return Floor()
    return _OF_SCAN if int(scan[1]) >= dimension / 2 else _OF_SHORT_SCAN


def scans(kind: str) -> bool:
    """Return whether a kind scans codes of rows that are rounded."""
    return kind in ("auto", "scan") or kind.endswith(ROUNDED)


def sample_size(factory: str, count: int) -> int:
    """Return how many rows an index is trained and tuned with: 40 for each of its lists, and enough for codebooks."""
    lists = [int(part[3:]) for part in factory.split(",") if part.startswith("IVF") and part[3:].isdecimal()]
    return min(count, HELD_OUT + max([40 * number for number in lists] + [TRAIN_AT]))


class Nearest:
    """The rows nearest to some queries, found while all rows pass by in batches."""

    def __init__(self, queries: Float32Array, k: int) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        self.positions = np.full((len(queries), k), -1, dtype=np.int64)

    def update(self, vectors: Float32Array, first: int) -> None:
        """Compare rows with the positions from `first` on."""
        k = min(self.positions.shape[1], len(vectors))
        scores, positions = faiss.knn(self._queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([self._scores, scores], axis=1)
        positions = np.concatenate([self.positions, positions + first], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.positions.shape[1]]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self.positions = np.take_along_axis(positions, best, axis=1)


def perturbed(rows: Float32Array, others: Float32Array) -> Float32Array:
    """Return unit vectors `(n, dimension)` half as far from rows `(n, dimension)` as their nearest among others are.

    A query is not a row: a graph leads to a row that lies in it more surely than to the neighbours of a point beside it. On
    four clustered sets of 3,000 to 30,000 rows the recall for such points was that of fresh ones or up to 0.09 lower; that
    for rows was up to 0.08 too high, that for points at the whole distance up to 0.4 too low.
    """
    cosines, _ = faiss.knn(rows, others, 1, metric=faiss.METRIC_INNER_PRODUCT)
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    noise = np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    return unit(rows + distances / 2 * unit(noise))


def tuned(inner: Any, queries: Float32Array, truth: NDArray[np.int64], tuning: Tuning, *, lossy: bool) -> Tuning:
    """Find the fastest parameters that surely reach the target recall, or the best ones; they stay set on the index.

    The recall of a point is the lower bound of its confidence interval over the queries. Candidates are rescored exactly,
    so the true rows among them are those of the final result. FAISS's criterion counts common rows of two lists of one
    length: the truth is padded with numbers that no row has.
    """
    count, k = truth.shape
    scans_all = floor_of(tuning.factory, inner.d).recall > 0  # what it promises it keeps, with every row if need be
    most = -(-inner.ntotal // k) if scans_all else _MOST_CANDIDATES
    space = space_of(inner)
    best: tuple[float, str, int] = (-1.0, "", 1)
    candidates = tuning.candidates
    while True:
        take = k * candidates + SPARE
        criterion = faiss.IntersectionCriterion(count, take)
        nobody = np.broadcast_to(-2 - np.arange(take - k), (count, take - k))
        criterion.set_groundtruth(None, np.concatenate([truth, nobody], axis=1).astype(np.int64))
        explored = space.explore(inner, queries, criterion)  # owns its points
        points = explored.optimal_pts
        each = (points.at(i) for i in range(points.size()))
        points_by_time = sorted((point.t, point.perf * take / k, point.key) for point in each if point.perf > 0)
        reached = False
        for _, recall, key in points_by_time:
            if recall > min(best[0], tuning.target_recall):  # its lower bound may be the better one
                space.set_index_parameters(inner, key)
                bound = _recall_bound(inner, queries, truth, take)
                best = max(best, (bound, key, candidates))
                if bound >= tuning.target_recall:
                    best, reached = (bound, key, candidates), True
                    break
        if reached or not lossy or candidates >= most:
            break
        candidates *= 2
    recall, parameters, candidates = best
    if parameters:
        space.set_index_parameters(inner, parameters)
    return replace(tuning, parameters=parameters, candidates=candidates, recall=round(max(recall, 0.0), 4))


def _recall_bound(inner: Any, queries: Float32Array, truth: NDArray[np.int64], take: int) -> float:
    """Return the recall of true rows among the first `take`, less two standard errors over the queries."""
    _, positions = inner.search(queries, take)
    shares = np.array([np.isin(want, got).mean() for want, got in zip(truth, positions, strict=True)])
    return float(shares.mean() - _SURE * shares.std(ddof=1) / np.sqrt(len(shares)))


def space_of(inner: Any) -> Any:
    """Return the search parameters of an index and their values, of FAISS's auto-tuning."""
    defaults, space = faiss.ParameterSpace(), faiss.ParameterSpace()
    defaults.initialize(inner)
    space.verbose = 0
    space.min_test_duration = 0.02  # seconds; less is noise
    for i in range(defaults.parameter_ranges.size()):
        range_ = defaults.parameter_ranges.at(i)
        if range_.name != "ht":  # polysemous codes, which are not trained here
            faiss.copy_array_to_vector(faiss.vector_to_array(range_.values), space.add_range(range_.name).values)
    return space


def reason(error: Exception) -> str:
    """Return FAISS's message without its source location."""
    return str(error).rsplit("Error: ", 1)[-1].strip()
