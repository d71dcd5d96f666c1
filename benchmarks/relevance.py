"""The weights of `Hit.relevance`, and what share of hits above one half is relevant, on sets that they were not fitted on.

Each set is searched whole and in random parts of 100 and 10
documents, with its own queries and with those of other sets, to which nothing in it is relevant. Each set is judged by
weights that were fitted on the others; the weights of all sets stand in tp_retrieval/indexing/search/relevance.py.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.common import as_record, computed_in, load, read_set
from tp_retrieval import Document, Embedder, Index
from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.evaluation.metrics import bootstrap
from tp_retrieval.indexing.search.query import Mode
from tp_retrieval.indexing.search.relevance import QueryScale, sample_of
from tp_retrieval.indexing.storage.fulltext import terms_of

SETS = ("adi", "python-faq", "xquad-en", "xquad-de", "cranfield", "scifact")
HITS = 10  # judged of each query
MOST_DOCUMENTS = 600
PARTS = {100: 4, 10: 12}  # random parts of so many documents
OTHERS = 25  # queries of each other set
MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")
USED = {"hybrid": [0, 1], "dense": [0], "lexical": [1]}


@dataclass(frozen=True)
class Judged:
    """The hits of one index in one mode: evidence `(n, 2)` of cosine and BM25, whether relevant, and of which query."""

    recipe: str
    dataset: str
    documents: str
    mode: Mode
    evidence: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    query: NDArray[np.int64]
    own: NDArray[np.bool_]

    def values(self) -> NDArray[np.float64]:
        """Return the evidence that the mode has."""
        used: NDArray[np.float64] = self.evidence[:, USED[self.mode]]
        return used


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--recipes", nargs="+", default=["retrieval-balanced", "retrieval-fast"])
    parser.add_argument("--queries", type=int, default=100, help="so many of each set's, drawn once")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return a record of every mode, recipe, set and size, and the weights fitted on all sets by mode."""
    judged: list[Judged] = []
    loaded = load(options, "retrieval")
    for recipe in options.recipes:
        embedder = loaded.with_recipe(recipe)
        sets = [read_set(options, name, embedder) for name in options.sets]
        judged += [part for own in sets for part in judgements(recipe, own, sets, embedder, options.queries)]
    by_mode = {mode: [part for part in judged if part.mode == mode] for mode in MODES}
    records = [record for of_mode in by_mode.values() for record in records_of(of_mode)]
    weights = {mode: weights_of(mode, of_mode) for mode, of_mode in by_mode.items()}
    return computed_in(loaded) | {"records": records, "weights": weights}


def judgements(
    recipe: str, own: RetrievalSet, sets: Sequence[RetrievalSet], embedder: Embedder, queries: int
) -> Iterator[Judged]:
    """Yield what is found in a set, and in random parts of it."""
    rng = random.Random(0)
    names = sorted(own.queries)
    asked = rng.sample(names, min(queries, len(names)))
    documents = sorted({id_ for query in asked for id_ in own.grades[query]})
    others = [id_ for id_ in sorted(own.documents) if id_ not in documents]
    documents += rng.sample(others, min(len(others), max(MOST_DOCUMENTS - len(documents), 0)))
    elsewhere = [
        query
        for other in sets
        if other.name.split("-")[0] != own.name.split("-")[0]  # xquad-de and xquad-en are translations of one another
        for query in rng.sample(sorted(other.queries.values()), min(OTHERS, len(other.queries)))
    ]
    vectors = dict(zip(documents, embedder.embed_documents([own.documents[id_] for id_ in documents]), strict=True))
    sizes = {size: count for size, count in PARTS.items() if 2 * size <= len(documents)}
    parts = [documents, *(rng.sample(documents, size) for size, count in sizes.items() for _ in range(count))]
    by_size: dict[str, list[Sequence[str]]] = {}
    for part in parts:
        by_size.setdefault(str(len(part)) if len(part) in PARTS else "all", []).append(part)
    texts = [*(own.queries[query] for query in asked), *elsewhere]
    raw = embedder.embed_queries(texts)
    for size, of_size in by_size.items():
        for mode in MODES:
            rows = [row for part in of_size for row in hits(part, own, vectors, asked, texts, raw, mode, embedder)]
            evidence, relevant, query, is_own = (np.array(column) for column in zip(*rows, strict=True))
            yield Judged(recipe, own.name, size, mode, evidence, relevant, query, is_own)


def hits(
    part: Sequence[str],
    own: RetrievalSet,
    vectors: dict[str, NDArray[np.float32]],
    asked: Sequence[str],
    texts: Sequence[str],
    raw: NDArray[np.float32],
    mode: Mode,
    embedder: Embedder,
) -> Iterator[tuple[list[float], bool, int, bool]]:
    """Yield of each hit in a part the evidence, whether it is relevant, its query's number, and whether that is of the set.

    In a part a query of the set counts if something there is relevant to it.
    """
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", embedder, kind="flat") as index:
        index.add([Document(own.documents[id_], {}, id_) for id_ in part], vectors=np.stack([vectors[id_] for id_ in part]))
        position = {id_: i for i, id_ in enumerate(part)}
        stored = np.concatenate([batch for _, batch in index.batches()])
        cosines = index.map_vectors(raw, role="query") @ stored.T
        sample = sample_of(np.arange(len(part)))
        for number, text in enumerate(texts):
            grades = own.grades[asked[number]] if number < len(asked) else {}
            if number < len(asked) and not any(grades.get(id_, 0) > 0 for id_ in part):
                continue
            scale = QueryScale(len(part), len(terms_of(text, "words", warn=False)), sample, cosines[number, sample])
            k = min(HITS, max(len(part) // 2, 1))
            if mode == "lexical":
                found = index.search(text, k, mode=mode)
            else:
                found = index.search_by_vector(raw[number], k, text=text if mode == "hybrid" else None)
            for hit in found:
                id_ = str(hit.document.id)
                dense = scale.dense_evidence(position[id_], hit.parts["dense"]) if "dense" in hit.parts else 0.0
                lexical = scale.lexical_evidence(hit.parts["lexical"]) if "lexical" in hit.parts else 0.0
                yield [dense, lexical], grades.get(id_, 0) > 0, number, number < len(asked)


def fitted(judged: Sequence[Judged]) -> LogisticRegression:
    """Return a regression in which every set, and in it every size, counts alike."""
    weights = np.concatenate([np.full(len(part.relevant), 1 / len(part.relevant)) for part in judged])
    values = np.concatenate([part.values() for part in judged])
    regression = LogisticRegression(C=1e6, max_iter=1000)
    return regression.fit(
        values, np.concatenate([part.relevant for part in judged]), weights * len(weights) / weights.sum()
    )


def records_of(judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """Yield of every set and size the shares of its hits above one half, by weights fitted on the other sets."""
    for part in judged:
        others = [other for other in judged if other.dataset.split("-")[0] != part.dataset.split("-")[0]]
        if not others:
            continue
        above = fitted(others).predict_proba(part.values())[:, 1] > 0.5
        record = {"recipe": part.recipe, "mode": part.mode, "set": part.dataset, "documents": part.documents}
        counts = {"hits": len(above), "above": int(above.sum()), "above and relevant": int((above & part.relevant).sum())}
        foreign = {"foreign": int((~part.own).sum()), "foreign above": int((above & ~part.own).sum())}
        shares = {"relevant": share(part, above, part.relevant), "found": share(part, part.relevant, above)}
        yield record | counts | foreign | shares


def weights_of(mode: Mode, judged: Sequence[Judged]) -> dict[str, float]:
    """Return the weights that are fitted on all sets."""
    regression = fitted(judged)
    weights = dict.fromkeys(("dense", "lexical"), 0.0)
    for column, weight in zip(USED[mode], regression.coef_[0], strict=True):
        weights[("dense", "lexical")[column]] = round(float(weight), 2)
    return {**weights, "constant": round(float(regression.intercept_[0]), 2)}


def share(part: Judged, among: NDArray[np.bool_], which: NDArray[np.bool_]) -> dict[str, float] | None:
    """Return the share of `which` in `among`, in percent, with an interval of 95% over queries; None among nothing."""
    queries = np.unique(part.query)
    counts = np.array(
        [[(among & which)[part.query == query].sum(), among[part.query == query].sum()] for query in queries], dtype=float
    )

    def of_sample(rows: NDArray[np.int64]) -> float:
        hits, total = counts[rows].sum(axis=0)
        return float(hits / total) if total else 0.0

    return as_record(bootstrap(of_sample, len(queries))) if among.any() else None
