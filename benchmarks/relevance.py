"""The weights of `Hit.relevance`, and what share of hits above one half is relevant, on sets that they were not fitted on.

Run: python benchmarks/relevance.py FOLDER... [--recipe NAME]... [--queries 200]

A folder holds corpus.jsonl[.gz], queries.jsonl and qrels.tsv. Each is searched whole and in random parts of 100 and 10
documents, with its own queries and with those of other sets, to which nothing in it is relevant. Each set is judged by
weights that were fitted on the others; the last lines are fitted on all, and stand in
tp_retrieval/indexing/search/relevance.py. Prints tables and writes benchmarks/results/relevance.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from tp_retrieval import Document, Embedder, Index
from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import Estimate, bootstrap
from tp_retrieval.indexing.search.query import Mode
from tp_retrieval.indexing.search.relevance import QueryScale, sample_of
from tp_retrieval.indexing.storage.fulltext import terms_of

ROOT = Path(__file__).parents[1]
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


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe", action="append", help="may be given several times")
    parser.add_argument("--model")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/relevance.json")
    options = parser.parse_args()
    judged: list[Judged] = []
    for recipe in options.recipe or ["retrieval-balanced", "retrieval-fast"]:
        embedder = Embedder.from_pretrained(options.model, recipe=recipe)
        sets = [cut(read_retrieval(folder), embedder, 256) for folder in options.folders]
        judged += [judgement for own in sets for judgement in judgements(recipe, own, sets, embedder, options.queries)]
    records = [record for mode in MODES for record in report(mode, [part for part in judged if part.mode == mode])]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(records, indent=1) + "\n")


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


def report(mode: Mode, judged: Sequence[Judged]) -> list[dict[str, object]]:
    """Print a table of a mode, each set by weights fitted on the others, and the weights of all; return it as JSON."""
    console, records = Console(width=140), []
    columns = ("recipe", "set", "documents", "above 0.5", "of them relevant", "of the relevant hits", "others' above 0.5")
    table = Table(*columns, title=mode)
    for part in judged:
        others = [other for other in judged if other.dataset.split("-")[0] != part.dataset.split("-")[0]]
        if not others:
            continue
        probability = fitted(others).predict_proba(part.values())[:, 1]
        above = probability > 0.5
        relevant = _share(part, above, part.relevant)
        found = _share(part, part.relevant, above)
        foreign = float(above[~part.own].mean())
        table.add_row(
            part.recipe, part.dataset, part.documents, str(int(above.sum())), relevant, found, f"{100 * foreign:.1f}%"
        )
        record = {"recipe": part.recipe, "mode": mode, "set": part.dataset, "documents": part.documents}
        records.append(record | {"above": int(above.sum()), "relevant": relevant, "found": found, "foreign": foreign})
    console.print(table)
    regression = fitted(judged)
    weights = dict.fromkeys(("dense", "lexical"), 0.0)
    for column, weight in zip(USED[mode], regression.coef_[0], strict=True):
        weights[("dense", "lexical")[column]] = round(float(weight), 2)
    final = {**weights, "constant": round(float(regression.intercept_[0]), 2)}
    console.print(f"weights: {final}")
    return [*records, {"mode": mode, "weights": final}]


def _share(part: Judged, among: NDArray[np.bool_], which: NDArray[np.bool_]) -> str:
    """Return the share of `which` in `among`, in percent, with an interval of 95% over queries."""
    queries = np.unique(part.query)
    counts = np.array(
        [[(among & which)[part.query == query].sum(), among[part.query == query].sum()] for query in queries], dtype=float
    )

    def share(rows: NDArray[np.int64]) -> float:
        hits, total = counts[rows].sum(axis=0)
        return float(hits / total) if total else 0.0

    if not among.any():
        return "none"
    estimate: Estimate = bootstrap(share, len(queries))
    return f"{estimate.value:.0f}% [{estimate.low:.0f}, {estimate.high:.0f}]"


if __name__ == "__main__":
    main()
