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
from typing import Unpack

import numpy as np

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.affine import combine, fit_views
from tp_retrieval.embedding.maps.within import embed_sample
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import LabelledTexts, RetrievalSet, StsPairs
from tp_retrieval.evaluation.metrics import Estimate, Values, bootstrap, mean_of
from tp_retrieval.indexing.index import Index
from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.types import Document, Float32Array, HitReranker, TextEmbedder

DEPTH = 100
"""Hits that retrieval metrics read."""


@dataclass(frozen=True)
class StsScores:
    """The pairs of a dataset and their cosines."""

    dataset: StsPairs
    cosines: Values

    @cached_property
    def spearman(self) -> Estimate:
        """Spearman's correlation over all pairs together (the paper's "all")."""
        return bootstrap(self.correlation, len(self.cosines))

    @cached_property
    def subsets(self) -> dict[str, Estimate]:
        """Spearman's correlation of each subset."""
        estimates = {}
        for name in dict.fromkeys(self.dataset.subsets):
            rows = np.flatnonzero(np.array(self.dataset.subsets) == name)
            estimates[name] = bootstrap(lambda sample, rows=rows: self.correlation(rows[sample]), len(rows))  # type: ignore[misc]
        return estimates

    def gain(self, other: StsScores) -> Estimate:
        """Return the correlation's gain over another embedder's cosines of the same pairs."""
        return bootstrap(lambda rows: self.correlation(rows) - other.correlation(rows), len(self.cosines))

    def correlation(self, rows: metrics.Rows) -> float:
        """Return Spearman's correlation of some pairs."""
        return metrics.spearman(self.cosines[rows], np.array(self.dataset.scores)[rows])


@dataclass(frozen=True)
class RetrievalScores:
    """The value of every query, for each way of searching and each metric."""

    dataset: RetrievalSet
    values: Mapping[str, Mapping[str, Values]]

    def estimate(self, way: str, metric: str) -> Estimate:
        """Return the mean over queries."""
        values = self.values[way][metric]
        return bootstrap(mean_of(values), len(values))

    def gain(self, way: str, over: str, metric: str) -> Estimate:
        """Return the mean gain of one way over another on the same queries."""
        difference = self.values[way][metric] - self.values[over][metric]
        return bootstrap(mean_of(difference), len(difference))


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracy of a linear probe on held-out texts, and V-measure of k-means of their vectors."""

    accuracy: Estimate
    v_measure: Estimate


def evaluate_sts(embedder: TextEmbedder, dataset: StsPairs) -> StsScores:
    """Compare the cosines of pairs, embedded as documents with maps fitted on the sentences, with gold scores."""
    unit = _unit_vectors(embedder, list(dict.fromkeys(dataset.first + dataset.second)))
    cosines = [float(unit[first] @ unit[second]) for first, second in zip(dataset.first, dataset.second, strict=True)]
    return StsScores(dataset, np.array(cosines))


def evaluate_retrieval(
    embedder: TextEmbedder,
    dataset: RetrievalSet,
    *,
    reranker: HitReranker | None = None,
    show_progress: bool = False,
    **options: Unpack[SearchOptions],
) -> RetrievalScores:
    """Search an index of the documents by words (`bm25`), by vectors (`dense`) and by both (`hybrid`).

    With a `reranker` there are also the hybrid search's hits in its order (`reranked`). `options` go to the hybrid search:
    `dense_weight`, `fusion`.
    """
    queries = list(dataset.queries)
    texts = list(dataset.queries.values())
    ways: dict[str, SearchOptions] = {"bm25": {"mode": "lexical"}, "dense": {"mode": "dense"}, "hybrid": options}
    if reranker is not None:
        ways["reranked"] = {**options, "rerank": reranker}
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", embedder, kind="flat") as index:
        documents = [Document(text, {}, id_) for id_, text in dataset.documents.items()]
        index.add(documents, show_progress=show_progress)
        values = {}
        for way, search in ways.items():
            results = index.search(texts, DEPTH, **search)
            run = {query: [str(hit.document.id) for hit in hits] for query, hits in zip(queries, results, strict=True)}
            values[way] = metrics.retrieval(run, dataset.grades)
    return RetrievalScores(dataset, values)


def evaluate_classification(embedder: TextEmbedder, train: LabelledTexts, test: LabelledTexts) -> ClassificationScores:
    """Fit a logistic regression on the training texts' vectors and test it; cluster the test texts into as many classes.

    Maps that are not fitted yet are fitted on all texts of both, without labels. Raises `InputError` for a single class.
    """
    if len(set(train.labels)) < 2:
        raise InputError(f"{train.name}: every text is labelled {train.labels[0]!r}; a classifier needs two classes")
    unit = _unit_vectors(embedder, list(dict.fromkeys(train.texts + test.texts)))
    tested = np.stack([unit[text] for text in test.texts])
    correct = metrics.probe(np.stack([unit[text] for text in train.texts]), train.labels, tested, test.labels)
    clusters = metrics.clusters(tested, len(set(test.labels)))
    labels = np.array(test.labels)
    return ClassificationScores(
        bootstrap(mean_of(correct), len(correct)),
        bootstrap(lambda rows: metrics.v_measure(labels[rows].tolist(), clusters[rows]), len(labels), resamples=200),
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
    """Return the longest prefix, among those that end at `ends`, within so many tokens; empty if none is."""
    fitting = bisect_right(ends, tokens, key=lambda end: counter.count_tokens(text[:end]))
    return text[: ends[fitting - 1]] if fitting else ""


def _unit_vectors(embedder: TextEmbedder, texts: Sequence[str]) -> dict[str, Float32Array]:
    if isinstance(embedder, Embedder) and not embedder.fitted:
        raw, stretches = embed_sample(embedder, texts, embedder.raw_views)
        vectors = combine(raw, embedder.raw_views, fit_views(raw, embedder.raw_views, stretches))
    else:
        vectors = embedder.embed_documents(texts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors / np.maximum(lengths, 1e-30), strict=True))
