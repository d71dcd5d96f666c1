"""The objective of several datasets: the mean of theirs.

objective = combined([RetrievalObjective(read_retrieval(folder)) for folder in folders])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from tp_retrieval.embedding.maps.within import ViewStretches
from tp_retrieval.embedding.recipe import Readout
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Rows, Values
from tp_retrieval.evaluation.objectives.objective import Objective
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.objectives.sts import StsObjective
from tp_retrieval.types import Float32Array


class MultiDatasetObjective:
    """The mean of the datasets' scores, each with maps fitted on its documents.

    Queries, documents, labels and items are the datasets', one dataset after the other.
    """

    def __init__(self, parts: Sequence[StsObjective | RetrievalObjective]) -> None:
        self._parts = parts
        self.dense_weights = parts[0].dense_weights
        self.sets = dict(zip((part.dataset.name for part in parts), _ranges([part.count for part in parts]), strict=True))
        if len(self.sets) < len(parts):
            raise InputError(f"two sets of data have the same name among {[part.dataset.name for part in parts]}")

    @cached_property
    def queries(self) -> Sequence[str]:
        """The datasets' queries."""
        return [text for part in self._parts for text in part.queries]

    @cached_property
    def documents(self) -> Sequence[str]:
        """The datasets' documents."""
        return [text for part in self._parts for text in part.documents]

    @property
    def labels(self) -> Sequence[object]:
        """The datasets' labels."""
        return [label for part in self._parts for label in part.labels]

    @property
    def held_out(self) -> Rows:
        """Items kept from the search, of each dataset."""
        return np.concatenate([rows[part.held_out] for rows, part in zip(self.sets.values(), self._parts, strict=True)])

    @property
    def chosen_by(self) -> Rows:
        """Items that recipes are chosen by, of each dataset."""
        return np.concatenate([rows[part.chosen_by] for rows, part in zip(self.sets.values(), self._parts, strict=True)])

    @cached_property
    def sampled(self) -> Mapping[Readout, Rows]:
        """The documents of each dataset whose stretches maps are fitted on, for each readout."""
        document_rows = _ranges([len(part.documents) for part in self._parts])
        pairs = list(zip(self._parts, document_rows, strict=True))
        readouts = self._parts[0].sampled
        return {readout: np.concatenate([rows[part.sampled[readout]] for part, rows in pairs]) for readout in readouts}

    def compare(
        self,
        queries: Float32Array | None,
        documents: Float32Array,
        map_: str,
        stretches: ViewStretches | None = None,
        source: Float32Array | None = None,
    ) -> Float32Array:
        """Return the datasets' cosines, flattened and concatenated."""
        query_rows = _ranges([len(part.queries) for part in self._parts])
        document_rows = _ranges([len(part.documents) for part in self._parts])
        return np.concatenate(
            [
                part.compare(
                    None if queries is None else queries[q],
                    documents[d],
                    map_,
                    None if stretches is None else stretches.of(d),
                    None if source is None else source[d],
                ).ravel()
                for part, q, d in zip(self._parts, query_rows, document_rows, strict=True)
            ]
        )

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return the datasets' signals, concatenated."""
        sizes = [part.count if not part.queries else part.count * len(part.documents) for part in self._parts]
        pieces = zip(self._parts, _ranges(sizes), strict=True)
        return np.concatenate([part.signal(cosines[rows], dense_weight) for part, rows in pieces])

    def score(self, signal: Values, rows: Rows) -> float:
        """Return the mean score over the datasets that have some of the items."""
        scores = []
        for part, items in zip(self._parts, self.sets.values(), strict=True):
            inside = rows[(rows >= items[0]) & (rows <= items[-1])] - items[0]
            if len(inside):
                scores.append(part.score(signal[items], inside))
        return float(np.mean(scores))

    def sample(self, items: int) -> MultiDatasetObjective:
        """Return an objective of equally many random items of each dataset."""
        each = max(items // len(self._parts), 2)
        return MultiDatasetObjective([part.sample(each) for part in self._parts])


def combined(parts: Sequence[StsObjective | RetrievalObjective]) -> Objective:
    """Return a single objective unchanged, several as one."""
    return parts[0] if len(parts) == 1 else MultiDatasetObjective(parts)


def _ranges(sizes: Sequence[int]) -> list[Rows]:
    """Return consecutive ranges of rows of the given sizes."""
    ends = np.cumsum([0, *sizes])
    return [np.arange(begin, end) for begin, end in pairwise(ends)]
