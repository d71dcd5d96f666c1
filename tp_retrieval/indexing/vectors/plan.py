"""An approximate index that is to be built, as one value: it can be built under the index's lock or beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.meta import VectorSettings
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex, Rows
from tp_retrieval.types import Float32Array

_MOST_LATER = 16  # batches of rows that came in during a build; what is left is replayed


class UnitRows(Protocol):
    """Rows as unit vectors: those of the store, or those that are held in memory."""

    def some(self, seqs: Seqs) -> Float32Array:
        """Return those of some rows that are there, `(n, dimension)`, in the order of their numbers."""

    def after(self, last: int) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the rows beyond a number and their vectors `(n, dimension)`, ascending, in batches."""


@dataclass(frozen=True)
class Plan:
    """What to build, and the state of the store that it was planned at.

    `count` is the number of rows, `last` the highest; `sample` are those to train and tune with, `queries` are earlier ones
    of unit length `(n, dimension)`.
    """

    factory: str
    target_recall: float
    settings: VectorSettings
    generation: int
    deletion: int
    count: int
    last: int
    sample: Seqs
    queries: Float32Array | None

    def build(self, rows: UnitRows, exact: Rows, *, show_progress: bool = False) -> FaissIndex:
        """Return the index, filled with the planned rows and most of those that came in meanwhile; raise `InputError`.

        `exact` will give vectors to it.
        """
        sample = rows.some(np.sort(self.sample))
        if not len(sample):
            raise InputError(f"kind: {self.factory!r} can't be built, every row was deleted meanwhile")
        order = np.argsort(np.argsort(self.sample))  # a random one, of which the first are held out
        if len(sample) < len(order):  # some were deleted meanwhile
            order = np.random.default_rng(0).permutation(len(sample))
        sample = sample[order]

        def batches() -> Iterator[tuple[Seqs, Float32Array]]:
            """Yield the planned rows."""
            with tqdm(total=self.count, unit="vector", disable=not show_progress) as bar:
                for seqs, vectors in rows.after(0):
                    planned = seqs <= self.last
                    if planned.any():
                        yield seqs[planned], vectors[planned]
                    bar.update(int(planned.sum()))
                    if seqs[-1] >= self.last:
                        return

        built = FaissIndex.build(self.factory, sample, batches, exact, self.target_recall, self.queries)
        for seqs, vectors in itertools.islice(rows.after(self.last), _MOST_LATER):
            built.add(seqs, vectors)
        return built
