"""nDCG@10 of words, vectors and both, and of each reranked by the same model, on folders in BEIR's layout.

Run: python benchmarks/reranking.py FOLDER... [--trec FILE] [--method NAME]... [--chat] [--calibrate] [--queries N]
     [--demonstrations N] [--way both]... [--depth 20 --depth 50] [--weight 0.5]... [--keep FOLDER]

Every pair of query and document among the first hits of the three ways is scored once, then reranked by `Reranker` at each
depth and weight. Intervals are 95% bootstrap intervals over queries; those of a gain are paired. `--trec` is a file of
`{"query", "positive", "negative"}` lines; its questions that have both are scored by MRR. `--demonstrations` puts so many
passages with their questions before the document, for query-likelihood. `--keep` keeps the indexes for the next run.
Prints tables and writes benchmarks/results/reranking.json.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tp_retrieval import Document, Embedder, Hit, Index, Reranker
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import bootstrap, mean_of
from tp_retrieval.indexing.search.query import Mode
from tp_retrieval.reranking.methods import QueryLikelihood
from tp_retrieval.reranking.reranker import METHODS, PromptOptions

ROOT = Path(__file__).parents[1]
WAYS: Mapping[str, Mode] = {"words": "lexical", "vectors": "dense", "both": "hybrid"}
DEMONSTRATIONS = (
    (
        "The heart pumps blood through the body. It beats about seventy times a minute at rest.",
        "How fast does the heart beat?",
    ),
    ("Bread rises because yeast makes gas from sugar. In a cold kitchen this takes longer.", "Why does dough rise slowly?"),
    ("The bridge was opened in 1932. Ships of up to forty metres in height pass below it.", "When was the bridge opened?"),
)
Hits = dict[str, list[Hit]]
Record = dict[str, Any]
"""A JSON object of the results."""


class PrecomputedScores:
    """The scores of known pairs as a scorer, so that one pass over the pairs serves every depth and weight."""

    def __init__(self, scores: Mapping[tuple[str, str], float]) -> None:
        self._scores = scores

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> np.ndarray:
        """Return the pairs' scores."""
        return np.array([self._scores[pair] for pair in pairs], dtype=np.float32)


def estimate(values: np.ndarray, name: str = "ndcg@10") -> Record:
    """Return the mean in percent by its name, and its 95% bootstrap interval."""
    mean = bootstrap(mean_of(values), len(values), resamples=10_000)
    return {name: mean.value, "interval": (mean.low, mean.high)}


@dataclass(frozen=True)
class Task:
    """A set, and the first hits of each way of searching it."""

    data: RetrievalSet
    found: dict[str, Hits]

    def ndcg(self, hits: Hits) -> np.ndarray:
        """Return each query's nDCG@10."""
        run = {query: [str(hit.document.id) for hit in ranked] for query, ranked in hits.items()}
        return metrics.retrieval(run, self.data.grades)["ndcg@10"]


def demonstrated(count: int) -> str:
    """Return the prompt of query-likelihood with passages and their questions before it."""
    prompt = QueryLikelihood().prompt
    shown = [prompt.replace("{document}", text).replace("{query}", question) for text, question in DEMONSTRATIONS[:count]]
    return "\n\n".join([*shown, prompt])


def load(folder: Path, embedder: Embedder, indexes: Path, depth: int, count: int | None, ways: Sequence[str]) -> Task:
    """Search a set's judged queries, or some of them, in an index that is created unless it exists."""
    data = read_retrieval(folder)
    if count is not None and count < len(data.queries):
        drawn = random.Random(0).sample(sorted(data.queries), count)
        queries = {query: data.queries[query] for query in drawn}
        data = RetrievalSet(data.name, data.documents, queries, {query: data.grades[query] for query in drawn})
    with Index.open_or_create(indexes / folder.name, embedder) as index:
        if not len(index):
            documents = cut(data, embedder, 256).documents
            index.add([Document(text, {}, id_) for id_, text in documents.items()], show_progress=True)
            index.rebuild()
        found = {
            name: dict(zip(data.queries, index.search(list(data.queries.values()), depth, mode=mode), strict=True))
            for name, mode in WAYS.items()
            if name in ways
        }
    return Task(data, found)


def rerank(task: Task, reranker: Reranker, hits: Hits, depth: int) -> Hits:
    """Rerank the first `depth` hits of each query; the others stay behind them."""
    first = [ranked[:depth] for ranked in hits.values()]
    ordered = reranker.rerank(list(task.data.queries.values()), first)
    return {q: new + old[depth:] for (q, old), new in zip(hits.items(), ordered, strict=True)}


def measure(task: Task, reranker: Reranker, weights: Sequence[float], depths: Sequence[int]) -> list[Record]:
    """Return one record a way, depth and weight."""
    pairs = {
        (task.data.queries[q], hit.document.text)
        for found in task.found.values()
        for q, hits in found.items()
        for hit in hits
    }
    begin = time.perf_counter()
    ordered = sorted(pairs)
    scores = dict(zip(ordered, reranker.score_pairs(ordered, show_progress=True).tolist(), strict=True))
    minutes = (time.perf_counter() - begin) / 60
    records: list[Record] = []
    for way, hits in task.found.items():
        before = task.ndcg(hits)
        records.append({"set": task.data.name, "way": way, "depth": 0} | estimate(before))
        for depth in depths:
            for weight in weights:
                after = task.ndcg(rerank(task, Reranker(method=PrecomputedScores(scores), weight=weight), hits, depth))
                record = {"set": task.data.name, "way": way, "depth": depth, "weight": weight} | estimate(after)
                record |= {"gain": estimate(after - before)["interval"]}
                records.append(record | {"pairs": len(pairs), "minutes": minutes})
    return records


def mrr(file: Path, reranker: Reranker) -> Record:
    """Return the mean reciprocal rank of the first right answer, ties broken against it."""
    rows = [json.loads(line) for line in file.read_text().split("\n") if line]
    asked = [row for row in rows if row["positive"] and row["negative"]]
    found = []
    pairs = [(row["query"], text) for row in asked for text in [*row["negative"], *row["positive"]]]
    scores = iter(reranker.score_pairs(pairs))
    for row in asked:
        wrong = [next(scores) for _ in row["negative"]]
        right = max(next(scores) for _ in row["positive"])
        found.append(1 / (1 + sum(score >= right for score in wrong)))
    return {"set": file.stem, "questions": len(asked)} | estimate(np.array(found), "mrr")


def show(records: Sequence[Record], weights: Sequence[float]) -> Table:
    """Return the records of a set and method as a table: a row a way and depth, a column a weight."""
    table = Table("set", "hits of", "reranked", "before", *(f"weight {weight}" for weight in weights))
    for before in (r for r in records if r["depth"] == 0):
        rows: dict[object, list[str]] = {}
        for r in records:
            if r["way"] == before["way"] and r["depth"]:
                low, high = r["gain"]
                rows.setdefault(r["depth"], []).append(f"{r['ndcg@10']:.1f} ({low:+.1f} {high:+.1f})")
        for depth, cells in rows.items():
            low, high = before["interval"]
            table.add_row(
                str(before["set"]),
                str(before["way"]),
                f"{depth}",
                f"{before['ndcg@10']:.1f} [{low:.1f} {high:.1f}]",
                *cells,
            )
    return table


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--trec", type=Path)
    parser.add_argument("--method", action="append", choices=METHODS, help="may be given several times; by default all")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--demonstrations", type=int, default=0, choices=range(len(DEMONSTRATIONS) + 1))
    parser.add_argument("--way", action="append", choices=WAYS, help="may be given several times; by default all")
    parser.add_argument("--queries", type=int, help="so many of each set's, drawn once")
    parser.add_argument("--depth", type=int, action="append")
    parser.add_argument("--weight", type=float, action="append")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/reranking.json")
    arguments = parser.parse_args()
    depths, weights = arguments.depth or [20, 50], arguments.weight or [0.3, 0.5, 0.7, 1.0]
    embedder = Embedder.from_pretrained(arguments.model)
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as temporary:
        indexes = arguments.keep or Path(temporary)
        ways = arguments.way or list(WAYS)
        tasks = [load(folder, embedder, indexes, max(depths), arguments.queries, ways) for folder in arguments.folders]
    for method in arguments.method or METHODS:
        options: PromptOptions = {}
        if method != "embedding":
            options = {"chat": arguments.chat, "calibrate": arguments.calibrate}
        if method == "query-likelihood" and arguments.demonstrations:
            options["prompt"] = demonstrated(arguments.demonstrations)
        reranker = Reranker(embedder.with_recipe("sts") if method == "embedding" else embedder, method=method, **options)
        for task in tasks:
            measured = measure(task, reranker, weights, depths)
            Console(width=160).print(f"{method} {options}", show(measured, weights))
            records += [record | {"method": method} | options for record in measured]
        if arguments.trec:
            records.append(mrr(arguments.trec, reranker) | {"method": method} | options)
            Console(width=160).print(records[-1])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
