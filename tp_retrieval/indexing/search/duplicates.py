"""Documents that nearly equal an earlier one, found by comparing all vectors with all earlier ones, block by block.

The vectors lie in a temporary file, so that memory holds some blocks alone; the products run at the machine's matrix rate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tp_retrieval.types import Document, Float32Array

_ROWS, _EARLIER = 2048, 8192  # rows of a block, and earlier rows that it is compared with at once
_TIE = 1e-6  # float32 sums in an order that depends on a row's place


@dataclass(frozen=True)
class Duplicate:
    """The id of a document, that of the earlier one which it is nearest to, and their cosine."""

    id: str
    of: str
    score: float


def find(
    batches: Iterable[tuple[Sequence[Document], Float32Array]], threshold: float, *, show_progress: bool = False
) -> list[Duplicate]:
    """Return the documents whose cosine with an earlier one is at least a threshold, the most alike first.

    `batches` are documents with their unit vectors `(n, dimension)`, in the order of adding. Of equally near earlier
    documents the first is named.
    """
    ids: list[str] = []
    duplicates: list[Duplicate] = []
    with tempfile.TemporaryFile() as file:
        dimension = 0
        for documents, vectors in batches:
            file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
            ids += [str(document.id) for document in documents]
            dimension = vectors.shape[1]
        if not ids:
            return []
        file.flush()
        rows = np.memmap(file, dtype=np.float32, mode="r", shape=(len(ids), dimension))
        with tqdm(total=len(ids), unit="document", disable=not show_progress) as bar:
            for begin in range(0, len(ids), _ROWS):
                scores, earlier = _nearest_earlier(rows, begin)
                for i in np.flatnonzero(scores >= threshold - _TIE):
                    duplicates.append(Duplicate(ids[begin + i], ids[earlier[i]], min(round(float(scores[i]), 6), 1.0)))
                bar.update(len(scores))
        del rows
    return sorted(duplicates, key=lambda duplicate: -duplicate.score)


def _nearest_earlier(rows: Float32Array, begin: int) -> tuple[Float32Array, NDArray[np.int64]]:
    """Return for each row of a block the highest cosine with an earlier row, and the first row that has it."""
    block = np.asarray(rows[begin : begin + _ROWS])
    best = np.full(len(block), -np.inf, dtype=np.float32)
    places = np.zeros(len(block), dtype=np.int64)
    for first in range(0, begin + len(block), _EARLIER):
        last = min(first + _EARLIER, begin + len(block))
        scores = block @ np.asarray(rows[first:last]).T
        if last > begin:  # the block itself: a row is compared with those before it
            scores[np.arange(first, last) >= begin + np.arange(len(block))[:, None]] = -np.inf
        highest = scores.max(axis=1)
        (better,) = np.nonzero(highest > best + _TIE)
        places[better] = first + (scores[better] >= highest[better, None] - _TIE).argmax(axis=1)
        best[better] = highest[better]
    return best, places
