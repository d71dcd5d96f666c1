"""An approximate index that is to be built, as one value: it can be built under the index's lock or beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.meta import VectorSettings
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex, Rows
from tp_retrieval.indexing.vectors.fitting import MappedViews
from tp_retrieval.types import Float32Array


class RawRows(Protocol):
    """What gives stored rows; `Documents` does."""

    def stored(self, seqs: Seqs) -> tuple[Seqs, Float32Array]:
        """Return those of some rows that are there, ascending, and their raw vectors `(n, dimension)`."""

    def vectors(self, after: int = 0) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the row numbers beyond `after` and their raw vectors `(n, dimension)`, ascending, in batches."""


@dataclass(frozen=True)
class Plan:
    """What to build, and the state of the store that it was planned at.

    `count` is the number of rows, `sample` are those to train and tune with, `queries` earlier raw ones `(n, dimension)`.
    """

    factory: str
    target_recall: float
    settings: VectorSettings
    maps: MappedViews
    generation: int
    deletion: int
    count: int
    sample: Seqs
    queries: Float32Array | None

    def build(self, rows: RawRows, exact: Rows, *, show_progress: bool = False) -> FaissIndex:
        """Return the index, filled with all rows that are there; `exact` gives vectors later. Raises `InputError`."""
        _, sample = rows.stored(self.sample)
        if not len(sample):
            raise InputError(f"kind: {self.factory!r} can't be built, every row was deleted meanwhile")
        shuffled = np.random.default_rng(0).permutation(len(sample))  # the first ones are held out
        queries = None if self.queries is None else self.maps(self.queries, "query")

        def batches() -> Iterator[tuple[Seqs, Float32Array]]:
            with tqdm(total=self.count, unit="vector", disable=not show_progress) as bar:
                for seqs, raw in rows.vectors():
                    yield seqs, self.maps(raw)
                    bar.update(len(seqs))

        return FaissIndex.build(self.factory, self.maps(sample)[shuffled], batches, exact, self.target_recall, queries)
