"""Several sets of labelled data as one objective, so that all of them have a say in a choice.

objective = joint([RetrievalObjective(read_retrieval(folder)) for folder in folders])
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.metrics import Rows, Values
from tp_retrieval.evaluation.objectives import Objective, RetrievalObjective, StsObjective
from tp_retrieval.types import Float32Array


class JointObjective:
    """Several sets as one: the score is the mean of theirs, each with maps fitted on its own documents."""

    def __init__(self, parts: Sequence[StsObjective | RetrievalObjective]) -> None:
        self._parts = parts
        self.dense_weights = parts[0].dense_weights
        self.sets = dict(
            zip((part.dataset.name for part in parts), _stretches([part.count for part in parts]), strict=True)
        )
        if len(self.sets) < len(parts):
            raise InputError(f"two sets of data have the same name among {[part.dataset.name for part in parts]}")

    @cached_property
    def queries(self) -> Sequence[str]:
        """The sets' queries, one set after the other, and so are documents, labels and items."""
        return [text for part in self._parts for text in part.queries]

    @cached_property
    def documents(self) -> Sequence[str]:
        """The sets' documents."""
        return [text for part in self._parts for text in part.documents]

    @property
    def labels(self) -> Sequence[object]:
        """The sets' labels."""
        return [label for part in self._parts for label in part.labels]

    @property
    def held_out(self) -> Rows:
        """Items of each set that the search does not look at."""
        return np.concatenate([rows[part.held_out] for rows, part in zip(self.sets.values(), self._parts, strict=True)])

    @property
    def chosen_by(self) -> Rows:
        """Items of each set that choices look at."""
        return np.concatenate([rows[part.chosen_by] for rows, part in zip(self.sets.values(), self._parts, strict=True)])

    def compare(self, queries: Float32Array | None, documents: Float32Array, map_: str) -> Float32Array:
        """Return the sets' cosines, flattened, one set after the other."""
        asked = _stretches([len(part.queries) for part in self._parts])
        found = _stretches([len(part.documents) for part in self._parts])
        return np.concatenate(
            [
                part.compare(None if queries is None else queries[q], documents[d], map_).ravel()
                for part, q, d in zip(self._parts, asked, found, strict=True)
            ]
        )

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return the sets' signals, one set after the other."""
        sizes = [part.count if not part.queries else part.count * len(part.documents) for part in self._parts]
        pieces = zip(self._parts, _stretches(sizes), strict=True)
        return np.concatenate([part.signal(cosines[rows], dense_weight) for part, rows in pieces])

    def score(self, signal: Values, rows: Rows) -> float:
        """Return the mean score of the sets that some items are from."""
        scores = []
        for part, own in zip(self._parts, self.sets.values(), strict=True):
            drawn = rows[(rows >= own[0]) & (rows <= own[-1])] - own[0]
            if len(drawn):
                scores.append(part.score(signal[own], drawn))
        return float(np.mean(scores))

    def sample(self, items: int) -> JointObjective:
        """Return a smaller objective with an equal share of the items of each set."""
        each = max(items // len(self._parts), 2)
        return JointObjective([part.sample(each) for part in self._parts])


def joint(parts: Sequence[StsObjective | RetrievalObjective]) -> Objective:
    """Return one set's objective as it is, several as one."""
    return parts[0] if len(parts) == 1 else JointObjective(parts)


def _stretches(sizes: Sequence[int]) -> list[Rows]:
    """Return the places of stretches of such sizes, one after the other."""
    ends = np.cumsum([0, *sizes])
    return [np.arange(begin, end) for begin, end in pairwise(ends)]
