"""Score an embedder on labelled data, with the uncertainty of every figure.

evaluate_sts(embedder, read_sts("STSB-dev.tsv")).spearman          # Estimate(76.0, 73.1, 78.8)
scores = evaluate_retrieval(embedder, read_retrieval("ir/python-faq"))
scores.estimate("hybrid", "ndcg@10"), scores.gain("hybrid", "bm25", "ndcg@10")
"""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.affine import combine, fit_views
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import LabelledTexts, RetrievalSet, StsPairs
from tp_retrieval.evaluation.metrics import Estimate, Values, bootstrap, mean_of
from tp_retrieval.indexing.index import Index
from tp_retrieval.types import Document, Float32Array, TextEmbedder

DEPTH = 100
"""Hits that retrieval metrics look at."""

Key = TypeVar("Key")


@dataclass(frozen=True)
class StsScores:
    """Cosines of the pairs of a dataset, beside what people said."""

    dataset: StsPairs
    cosines: Values

    @cached_property
    def spearman(self) -> Estimate:
        """Spearman's correlation over all pairs together (the paper's "all")."""
        return bootstrap(self.correlation, len(self.cosines))

    @cached_property
    def subsets(self) -> dict[str, Estimate]:
        """Spearman's correlation of each subset."""
        found = {}
        for name in dict.fromkeys(self.dataset.subsets):
            rows = np.flatnonzero(np.array(self.dataset.subsets) == name)
            found[name] = bootstrap(lambda drawn, rows=rows: self.correlation(rows[drawn]), len(rows))  # type: ignore[misc]
        return found

    def gain(self, other: StsScores) -> Estimate:
        """How much more this correlates than another embedder's cosines of the same pairs."""
        return bootstrap(lambda rows: self.correlation(rows) - other.correlation(rows), len(self.cosines))

    def correlation(self, rows: metrics.Rows) -> float:
        """Spearman's correlation of some pairs."""
        return metrics.spearman(self.cosines[rows], np.array(self.dataset.scores)[rows])


@dataclass(frozen=True)
class RetrievalScores:
    """For each way of searching and each metric the value of every query."""

    dataset: RetrievalSet
    values: Mapping[str, Mapping[str, Values]]

    def estimate(self, way: str, metric: str) -> Estimate:
        """The mean over queries."""
        values = self.values[way][metric]
        return bootstrap(mean_of(values), len(values))

    def gain(self, way: str, over: str, metric: str) -> Estimate:
        """How much one way gains over another, by query."""
        difference = self.values[way][metric] - self.values[over][metric]
        return bootstrap(mean_of(difference), len(difference))


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracy of a linear probe on held-out texts, and how well k-means of their vectors finds the classes."""

    accuracy: Estimate
    v_measure: Estimate


def evaluate_sts(embedder: TextEmbedder, dataset: StsPairs) -> StsScores:
    """Embed both sides as documents, with the recipe's maps fitted on the sentences themselves, and compare."""
    unit = _unit_vectors(embedder, list(dict.fromkeys(dataset.first + dataset.second)))
    cosines = [float(unit[one] @ unit[other]) for one, other in zip(dataset.first, dataset.second, strict=True)]
    return StsScores(dataset, np.array(cosines))


def evaluate_retrieval(
    embedder: TextEmbedder,
    dataset: RetrievalSet,
    *,
    show_progress: bool = False,
    **options: Any,
) -> RetrievalScores:
    """Search an index of the documents by words (`bm25`), by vectors (`dense`) and by both (`hybrid`).

    `options` go to the hybrid search: `dense_weight`, `fusion`.
    """
    queries = list(dataset.queries)
    texts = list(dataset.queries.values())
    ways: dict[str, dict[str, Any]] = {"bm25": {"mode": "lexical"}, "dense": {"mode": "dense"}, "hybrid": options}
    with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/index", embedder, kind="flat") as index:
        documents = [Document(text, {}, id_) for id_, text in dataset.documents.items()]
        index.add(documents, show_progress=show_progress)
        values = {}
        for way, given in ways.items():
            results = index.search(texts, DEPTH, **given)
            run = {query: [str(hit.document.id) for hit in hits] for query, hits in zip(queries, results, strict=True)}
            values[way] = metrics.retrieval(run, dataset.grades)
    return RetrievalScores(dataset, values)


def evaluate_classification(embedder: TextEmbedder, train: LabelledTexts, test: LabelledTexts) -> ClassificationScores:
    """Fit a logistic regression on the training texts' vectors and test it; cluster the test texts into as many classes.

    Maps that are not fitted yet are fitted on all texts of both, without labels. Raises `InputError` if there is only one
    class to learn.
    """
    if len(set(train.labels)) < 2:
        raise InputError(f"{train.name}: every text is labelled {train.labels[0]!r}; a classifier needs two classes")
    unit = _unit_vectors(embedder, list(dict.fromkeys(train.texts + test.texts)))
    tested = np.stack([unit[text] for text in test.texts])
    right = metrics.probe(np.stack([unit[text] for text in train.texts]), train.labels, tested, test.labels)
    found = metrics.clusters(tested, len(set(test.labels)))
    labels = np.array(test.labels)
    return ClassificationScores(
        bootstrap(mean_of(right), len(right)),
        bootstrap(lambda rows: metrics.v_measure(labels[rows].tolist(), found[rows]), len(labels), resamples=200),
    )


def cut(dataset: RetrievalSet, counter: Embedder, tokens: int) -> RetrievalSet:
    """Return the dataset with every document cut after the last whole word within so many of a model's tokens.

    A text of few spaces, such as Chinese, is cut after a character.
    """
    documents = {id_: _cut(text, counter, tokens) for id_, text in dataset.documents.items()}
    return RetrievalSet(dataset.name, documents, dataset.queries, dataset.grades)


def _cut(text: str, counter: Embedder, tokens: int) -> str:
    if len(text.encode()) <= tokens or counter.count_tokens(text) <= tokens:
        return text
    ends = [match.start() for match in re.finditer(" ", text)]
    kept = _longest(text, ends, counter, tokens)
    if counter.count_tokens(kept) < tokens // 2:
        kept = _longest(text, range(1, len(text)), counter, tokens)
    return kept


def _longest(text: str, ends: Sequence[int], counter: Embedder, tokens: int) -> str:
    """Return the text up to the last of some places that leaves it within so many tokens; empty if none does."""
    fitting = bisect_right(ends, tokens, key=lambda end: counter.count_tokens(text[:end]))
    return text[: ends[fitting - 1]] if fitting else ""


def _unit_vectors(embedder: TextEmbedder, texts: Sequence[str]) -> dict[str, Float32Array]:
    vectors = embedder.embed_documents(texts)
    if isinstance(embedder, Embedder) and not embedder.fitted:
        maps = fit_views(vectors, embedder.raw_views)
        vectors = combine(vectors, embedder.raw_views, maps)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors / np.maximum(lengths, 1e-30), strict=True))
