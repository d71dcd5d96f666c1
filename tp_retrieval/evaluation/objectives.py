"""What tuning looks at: cosines of texts, turned into one signal a pair or query, and that into a score.

objective = RetrievalObjective(read_retrieval("ir/python-faq"))
cosines = objective.compare(raw_queries, raw_documents, "whiten:256")
signal = objective.signal(cosines, dense_weight=0.4)   # nDCG@10 of every query
estimate(objective, signal, objective.held_out)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from tp_retrieval.embedding.maps.affine import AffineMap, attainable, unit
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs
from tp_retrieval.evaluation.metrics import Estimate, Rows, Values, bootstrap, spearman
from tp_retrieval.indexing.index import Index
from tp_retrieval.indexing.search.fusion import best, fuse
from tp_retrieval.indexing.search.query import CANDIDATES, DENSE_WEIGHT
from tp_retrieval.types import Document, Float32Array

_SEED = 7
HELD_OUT = 1 / 3
"""Share of pairs or queries that the search does not look at."""


class Objective(Protocol):
    """Labelled data as tuning needs it."""

    dense_weights: Sequence[float]
    """Shares of the dense score to try in a hybrid search; one where there is no such thing."""

    @property
    def queries(self) -> Sequence[str]:
        """Texts of the one side, empty if both are documents."""

    @property
    def documents(self) -> Sequence[str]:
        """Texts of the other side, on which maps are fitted."""

    @property
    def labels(self) -> Sequence[object]:
        """What people said of every item, as JSON holds it."""

    @property
    def held_out(self) -> Rows:
        """Items that the search does not look at."""

    @property
    def chosen_by(self) -> Rows:
        """Items that choices look at."""

    @property
    def sets(self) -> Mapping[str, Rows]:
        """The items of each set of data, by its name."""

    def compare(self, queries: Float32Array | None, documents: Float32Array, map_: str) -> Float32Array:
        """Return the cosines that matter, of raw vectors `(n, width)` and a map fitted on the documents."""

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return one number an item."""

    def score(self, signal: Values, rows: Rows) -> float:
        """Return what some items' numbers amount to."""

    def sample(self, items: int) -> Objective:
        """Return a smaller objective of so many of the items that choices look at, all of them for choices."""


class _OneSet:
    """The items of one set in two parts, drawn once: one to choose by, one to be honest by.

    An item whose texts are also those of a held-out one is in neither.
    """

    dataset: StsPairs | RetrievalSet
    count: int
    folded: bool

    def texts_of_items(self) -> Sequence[object]:
        """Return what each item asks, by which equal ones are known."""
        raise NotImplementedError

    @cached_property
    def _order(self) -> Rows:
        return np.random.default_rng(_SEED).permutation(self.count)

    @property
    def held_out(self) -> Rows:
        return np.sort(self._order[: int(self.count * HELD_OUT)]) if self.folded else np.arange(0)

    @cached_property
    def chosen_by(self) -> Rows:
        if not self.folded:
            return np.arange(self.count)
        texts = self.texts_of_items()
        seen = {texts[i] for i in self.held_out}
        return np.array([i for i in np.sort(self._order[int(self.count * HELD_OUT) :]) if texts[i] not in seen], dtype=int)

    @property
    def sets(self) -> Mapping[str, Rows]:
        return {self.dataset.name: np.arange(self.count)}

    def compare(self, queries: Float32Array | None, documents: Float32Array, map_: str) -> Float32Array:
        """Return the cosines that matter, of raw vectors `(n, width)` and a map fitted on the documents."""
        fitted = AffineMap.fit(attainable(map_, documents.shape[1], len(documents)), lambda: [documents])
        units = unit(fitted(documents))
        return self.cosines(units if queries is None else unit(fitted(queries)), units)

    def cosines(self, queries: Float32Array, documents: Float32Array) -> Float32Array:
        """Return the cosines that matter, of unit vectors `(n, dim)`."""
        raise NotImplementedError


@dataclass
class StsObjective(_OneSet):
    """Spearman's correlation of cosines with what people said."""

    dataset: StsPairs
    folded: bool = True
    dense_weights: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        self.count = len(self.dataset.scores)
        self._gold = np.array(self.dataset.scores)
        place = {text: i for i, text in enumerate(self.documents)}
        self._first = [place[text] for text in self.dataset.first]
        self._second = [place[text] for text in self.dataset.second]

    def texts_of_items(self) -> Sequence[object]:
        """Return each pair's sentences, in whichever order."""
        return [frozenset(pair) for pair in zip(self.dataset.first, self.dataset.second, strict=True)]

    @property
    def queries(self) -> Sequence[str]:
        """No texts: both sides are documents."""
        return []

    @property
    def labels(self) -> Sequence[object]:
        """The pairs' scores."""
        return self.dataset.scores

    @cached_property
    def documents(self) -> Sequence[str]:
        """Every sentence once."""
        return list(dict.fromkeys(self.dataset.first + self.dataset.second))

    def cosines(self, queries: Float32Array, documents: Float32Array) -> Float32Array:
        """Return the cosine of every pair `(n,)`; `queries` is not looked at."""
        one, other = documents[self._first], documents[self._second]
        products: Float32Array = np.einsum("nd,nd->n", one, other)
        return products

    def signal(self, cosines: Float32Array, dense_weight: float) -> Values:
        """Return the cosines themselves."""
        return cosines.astype(np.float64)

    def score(self, signal: Values, rows: Rows) -> float:
        """Return Spearman's correlation of some pairs."""
        return spearman(signal[rows], self._gold[rows])

    def sample(self, items: int) -> StsObjective:
        """Return some of the pairs that choices look at."""
        rows = _drawn(self.chosen_by, items)
        data = self.dataset
        parts = ([column[i] for i in rows] for column in (data.first, data.second, data.scores, data.subsets))
        return StsObjective(StsPairs(data.name, *parts), folded=False)  # type: ignore[arg-type]


@dataclass
class RetrievalObjective(_OneSet):
    """nDCG@10 of a hybrid search, as an index does it; `dense_weights` (1,) looks at vectors alone."""

    dataset: RetrievalSet
    folded: bool = True
    dense_weights: Sequence[float] = (DENSE_WEIGHT, 0.3, 0.5, 0.6)

    def __post_init__(self) -> None:
        self.count = len(self.dataset.queries)
        self.queries = list(self.dataset.queries.values())
        self.documents = list(self.dataset.documents.values())
        place = {id_: i for i, id_ in enumerate(self.dataset.documents)}
        self._grades = [
            {place[id_]: grade for id_, grade in self.dataset.grades[query].items() if grade > 0}
            for query in self.dataset.queries
        ]
        self._ideal = np.array([_dcg(sorted(grades.values(), reverse=True)[:10]) for grades in self._grades])

    def texts_of_items(self) -> Sequence[object]:
        """Return the queries."""
        return self.queries

    @property
    def labels(self) -> Sequence[object]:
        """Each query's relevant documents, by place, and their grades."""
        return [sorted(grades.items()) for grades in self._grades]

    @cached_property
    def _words(self) -> Float32Array:
        """BM25 of every query and document, `(queries, documents)`, as an index has it."""
        found = np.zeros((len(self.queries), len(self.documents)), dtype=np.float32)
        with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/words", _Wordless(), kind="flat") as index:
            vectors = np.zeros((len(self.documents), 1), dtype=np.float32)
            index.add([Document(text, {}, str(i)) for i, text in enumerate(self.documents)], vectors=vectors)
            for i, query in enumerate(self.queries):
                for hit in index.search(query, len(self.documents), mode="lexical"):
                    found[i, int(str(hit.document.id))] = hit.score
        return found

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
        """Return the mean of some queries."""
        return float(signal[rows].mean())

    def sample(self, items: int) -> RetrievalObjective:
        """Return some of the queries that choices look at, their relevant documents, and others up to four a query."""
        data = self.dataset
        rows = _drawn(self.chosen_by, items)
        names = list(data.queries)
        queries = {names[i]: data.queries[names[i]] for i in rows}
        relevant = {id_ for query in queries for id_ in data.grades[query]}
        others = [id_ for id_ in data.documents if id_ not in relevant]
        drawn = {others[i] for i in _drawn(np.arange(len(others)), max(4 * items - len(relevant), items))}
        documents = {id_: text for id_, text in data.documents.items() if id_ in relevant or id_ in drawn}
        grades = {query: data.grades[query] for query in queries}
        return RetrievalObjective(RetrievalSet(data.name, documents, queries, grades), False, self.dense_weights)


def estimate(objective: Objective, signal: Values, rows: Rows) -> Estimate:
    """Return the score of some items with its interval."""
    return bootstrap(lambda drawn: objective.score(signal, rows[drawn]), *_items_of_sets(objective, rows))


def gain(objective: Objective, signal: Values, over: Values, rows: Rows) -> Estimate:
    """Return how much one signal scores above another on the same items."""
    return bootstrap(
        lambda drawn: objective.score(signal, rows[drawn]) - objective.score(over, rows[drawn]),
        *_items_of_sets(objective, rows),
    )


def _items_of_sets(objective: Objective, rows: Rows) -> list[int]:
    """Return how many of some items, which are in order, each set has; sets without any are left out."""
    counts = [len(np.intersect1d(rows, items)) for items in objective.sets.values()]
    return [count for count in counts if count] or [0]


class _Wordless:
    """An embedder for an index of which only words are asked."""

    dimension = 1
    fingerprint = "words"

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return nothing to compare."""
        return np.zeros((len(texts), 1), dtype=np.float32)

    embed_queries = embed_documents


def _drawn(rows: Rows, count: int) -> list[int]:
    chosen = np.random.default_rng(_SEED + 1).permutation(rows)[:count]
    return sorted(int(i) for i in chosen)


def _dcg(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 1) for rank, grade in enumerate(grades, 1)))
