"""Unit vectors in FAISS, numbered by the store's `seq`; a disposable image of the store that makes search fast."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import IndexAccessError, InputError
from tp_retrieval.types import Float32Array

KINDS = ("flat",)
_TIE = 1e-6  # FAISS sums in float32, in an order that depends on a row's place
_SPARE = 16  # rows fetched beyond k, so that a tie at the border is usually seen at once


class Vectors:
    """Hold unit vectors `(n, dimension) float32` under their row numbers and find the nearest by cosine."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def seqs(self) -> NDArray[np.int64]:
        """The row numbers held."""
        return faiss.vector_to_array(self._index.id_map).astype(np.int64)

    def add(self, seqs: NDArray[np.int64], vectors: Float32Array) -> None:
        """Add rows; numbers must be new, vectors finite."""
        if vectors.shape != (len(seqs), self.dimension):
            raise InputError(f"vectors of shape {vectors.shape}, expected {(len(seqs), self.dimension)}")
        if not np.isfinite(vectors).all():
            raise InputError("vectors must be finite")
        self._index.add_with_ids(np.ascontiguousarray(vectors), seqs)

    def remove(self, seqs: NDArray[np.int64]) -> None:
        """Remove rows; unknown numbers are passed over."""
        if len(seqs):
            self._index.remove_ids(faiss.IDSelectorBatch(seqs))

    def scores(self, query: Float32Array, seqs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cosine of a unit vector `(dimension,)` with rows, summed in float64."""
        if not len(seqs):
            return np.zeros(0)
        rows = self._index.reconstruct_batch(seqs).astype(np.float64)
        cosines: NDArray[np.float64] = np.einsum("ij,j->i", rows, query.astype(np.float64))
        return cosines.clip(-1.0, 1.0)

    def search(self, query: Float32Array, k: int) -> list[tuple[int, float]]:
        """Return the k rows nearest to a unit vector `(dimension,)` and their cosines, best first.

        Equal scores come in the order the rows were added, also at the border of the k.
        """
        k = min(k, len(self))
        if k < 1:
            return []
        take = min(k + _SPARE, len(self))
        while True:
            near, found = self._index.search(query[None], take)
            if take == len(self) or near[0, -1] < near[0, k - 1] - _TIE:
                break
            take = min(4 * take, len(self))
        seqs = found[0]
        scores = self.scores(query, seqs)
        order = np.lexsort((seqs, -np.round(scores, 7)))[:k]
        return [(int(seqs[i]), float(scores[i])) for i in order]

    def write(self, file: Path) -> str:
        """Write a snapshot beside `file`, flush it, rename it into place; return its sha256."""
        scratch = file.with_suffix(".tmp")
        try:
            faiss.write_index(self._index, str(scratch))
            digest = _sha256(scratch, flush=True)
            os.replace(scratch, file)
            _flush_folder(file.parent)
        except (RuntimeError, OSError) as error:
            scratch.unlink(missing_ok=True)
            raise IndexAccessError(f"can't write {file}: {error}") from error
        return digest

    @classmethod
    def read(cls, file: Path, dimension: int, digest: str) -> Vectors | None:
        """Read a snapshot, or return None where it is missing or is not the one with this sha256."""
        try:
            if _sha256(file) != digest:
                return None
            index = faiss.read_index(str(file))
        except (OSError, RuntimeError):
            return None
        self = cls(dimension)
        if index.d != dimension or not isinstance(index, faiss.IndexIDMap2):
            return None
        self._index = index
        return self


def _sha256(file: Path, *, flush: bool = False) -> str:
    with file.open("rb") as stream:
        if flush:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
