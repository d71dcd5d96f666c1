"""The objective of queries and documents: nDCG@10 of a hybrid search."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.evaluation.metrics import Rows, Values
from tp_retrieval.evaluation.objectives.objective import SingleSet, drawn
from tp_retrieval.indexing.index import Index
from tp_retrieval.indexing.search.fusion import best, fuse
from tp_retrieval.indexing.search.query import CANDIDATES, DENSE_WEIGHT
from tp_retrieval.types import Document, Float32Array, PrecomputedVectors


@dataclass
class RetrievalObjective(SingleSet):
    """nDCG@10 of a hybrid search like that of an index; with `dense_weights` (1,) of a dense one."""

    dataset: RetrievalSet
    folded: bool = True
    dense_weights: Sequence[float] = (DENSE_WEIGHT, 0.3, 0.5, 0.6)

    def __post_init__(self) -> None:
        self.count = len(self.dataset.queries)
        self.queries = list(self.dataset.queries.values())
        self.documents = list(self.dataset.documents.values())
        row = {id_: i for i, id_ in enumerate(self.dataset.documents)}
        self._grades = [
            {row[id_]: grade for id_, grade in self.dataset.grades[query].items() if grade > 0}
            for query in self.dataset.queries
        ]
        self._ideal = np.array([_dcg(sorted(grades.values(), reverse=True)[:10]) for grades in self._grades])

    def texts_of_items(self) -> Sequence[object]:
        """Return the queries."""
        return self.queries

    @property
    def labels(self) -> Sequence[object]:
        """Each query's relevant documents, as rows, and their grades."""
        return [sorted(grades.items()) for grades in self._grades]

    @cached_property
    def _words(self) -> Float32Array:
        """BM25 of every query and document, `(queries, documents)`, by an index."""
        scores = np.zeros((len(self.queries), len(self.documents)), dtype=np.float32)
        embedder = PrecomputedVectors(1, "words")
        with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/words", embedder, kind="flat") as index:
            vectors = np.zeros((len(self.documents), 1), dtype=np.float32)
            index.add([Document(text, {}, str(i)) for i, text in enumerate(self.documents)], vectors=vectors)
            for i, query in enumerate(self.queries):
                for hit in index.search(query, len(self.documents), mode="lexical"):
                    scores[i, int(str(hit.document.id))] = hit.score
        return scores

    def cosines(self, queries: Float32Array, documents: Float32Array) -> Float32Array:
        """Return the cosine of every query and document `(queries, documents)`."""
        products: Float32Array = queries @ documents.T
        return products

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return nDCG@10 of every query."""
        by_query = cosines.reshape(self.count, -1)
        return np.array([self._ndcg(i, row, dense_weight) for i, row in enumerate(by_query)])

    def _ndcg(self, query: int, cosines: Float32Array, dense_weight: float) -> float:
        if dense_weight == 1:
            ranked = best(cosines, 10)
        else:
            order, _ = fuse(cosines, self._words[query], dense_weight, CANDIDATES)
            ranked = order[:10]
        return _dcg([self._grades[query].get(int(i), 0) for i in ranked]) / float(self._ideal[query])

    def score(self, signal: Values, rows: Rows) -> float:
        """Return the mean over some queries."""
        return float(signal[rows].mean())

    def sample(self, items: int) -> RetrievalObjective:
        """Return an objective of some queries of `chosen_by`, their relevant documents, and others up to four a query."""
        data = self.dataset
        rows = drawn(self.chosen_by, items)
        names = list(data.queries)
        queries = {names[i]: data.queries[names[i]] for i in rows}
        relevant = {id_ for query in queries for id_ in data.grades[query]}
        others = [id_ for id_ in data.documents if id_ not in relevant]
        added = {others[i] for i in drawn(np.arange(len(others)), max(4 * items - len(relevant), items))}
        documents = {id_: text for id_, text in data.documents.items() if id_ in relevant or id_ in added}
        grades = {query: data.grades[query] for query in queries}
        return RetrievalObjective(RetrievalSet(data.name, documents, queries, grades), False, self.dense_weights)


def _dcg(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 1) for rank, grade in enumerate(grades, 1)))
