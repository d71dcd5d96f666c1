"""nDCG@10 of words, vectors and both, and of each reranked by the same model, by method, prompt, depth and weight.

Every pair of query and document among the first hits of the ways is scored once, then reranked by `Reranker` at each depth
and weight. Intervals are 95% bootstrap intervals over queries; those of a gain are paired. TREC QA's questions that have
right and wrong answers are ordered by the score alone, ties broken against the right ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import as_record, computed_in, drawn, load, read_set
from tp_retrieval import Document, Embedder, Hit, Index, Reranker
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.evaluation.metrics import Values, bootstrap, mean_of
from tp_retrieval.indexing.search.query import Mode
from tp_retrieval.reranking.methods import QueryLikelihood
from tp_retrieval.reranking.reranker import PromptOptions

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


@dataclass(frozen=True)
class Arm:
    """A method with its options, the sets that it is measured on, and the ways whose hits it orders."""

    method: str = "query-likelihood"
    demonstrations: int = 0
    chat: bool = False
    sets: Sequence[str] = ("python-faq", "cranfield")
    ways: Sequence[str] = ("both",)


ARMS: Mapping[str, Arm] = {
    "plain": Arm(sets=("python-faq", "cranfield", "scifact"), ways=tuple(WAYS)),
    "three demonstrations": Arm(demonstrations=len(DEMONSTRATIONS)),
    "chat template": Arm(chat=True),
    "yes-no": Arm("yes-no"),
    "choice": Arm("choice"),
    "embedding": Arm("embedding"),
}


class PrecomputedScores:
    """The scores of known pairs as a scorer, so that one pass over the pairs serves every depth and weight."""

    def __init__(self, scores: Mapping[tuple[str, str], float]) -> None:
        self._scores = scores

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> np.ndarray:
        """Return the pairs' scores."""
        return np.array([self._scores[pair] for pair in pairs], dtype=np.float32)


@dataclass(frozen=True)
class Task:
    """A set, and the first hits of each way of searching it."""

    data: RetrievalSet
    found: dict[str, Hits]

    def ndcg(self, hits: Hits) -> Values:
        """Return each query's nDCG@10."""
        run = {query: [str(hit.document.id) for hit in ranked] for query, ranked in hits.items()}
        return metrics.retrieval(run, self.data.grades)["ndcg@10"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--recipe", default="retrieval-balanced")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--queries", type=int, default=150, help="so many of each set's, drawn once")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the sets' hits, each arm's records by set, way, depth and weight, and each arm's MRR on TREC QA."""
    embedder = load(options, options.recipe, whole=True)
    arms = {name: ARMS[name] for name in options.arms}
    names = dict.fromkeys(name for arm in arms.values() for name in arm.sets)
    tasks = {name: searched(options, name, embedder) for name in names}
    figures: dict[str, Any] = {"hits": {}, "arms": {name: [] for name in arms}, "trecqa": {}}
    for name, task in tasks.items():
        ways = {way: estimated(task.ndcg(hits)) for way, hits in task.found.items()}
        figures["hits"][name] = {"queries": len(task.data.queries), "ways": ways}
    for name, arm in arms.items():
        reranker = reranker_of(embedder, arm)
        for of_set in arm.sets:
            figures["arms"][name] += reranked(options, tasks[of_set], reranker, arm.ways)
            print(name, of_set, *figures["arms"][name][-len(arm.ways) :], sep="\n", flush=True)
        if arm.method != "embedding":
            figures["trecqa"][name] = mrr(options.data / "rerank" / "trecqa-dev.jsonl", reranker)
    return computed_in(embedder) | {"recipe": options.recipe} | figures


def estimated(values: Values) -> dict[str, float]:
    """Return the mean in percent and its interval."""
    return as_record(bootstrap(mean_of(values), len(values)))


def reranker_of(embedder: Embedder, arm: Arm) -> Reranker:
    """Return the reranker of an arm."""
    if arm.method == "embedding":
        return Reranker(embedder.with_recipe("sts"), method="embedding")
    options: PromptOptions = {"chat": arm.chat}
    if arm.demonstrations:
        options["prompt"] = demonstrated(arm.demonstrations)
    return Reranker(embedder, method=arm.method, **options)


def demonstrated(count: int) -> str:
    """Return the prompt of query-likelihood with passages and their questions before it."""
    prompt = QueryLikelihood().prompt
    shown = [prompt.replace("{document}", text).replace("{query}", question) for text, question in DEMONSTRATIONS[:count]]
    return "\n\n".join([*shown, prompt])


def searched(options: argparse.Namespace, name: str, embedder: Embedder) -> Task:
    """Search a set's queries, or some of them, in each way."""
    data, depth = drawn(read_set(options, name, embedder), options.queries), max(options.depths)
    texts = list(data.queries.values())
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", embedder, kind="flat") as index:
        index.add([Document(text, {}, id_) for id_, text in data.documents.items()])
        found = {
            way: dict(zip(data.queries, index.search(texts, depth, mode=mode), strict=True)) for way, mode in WAYS.items()
        }
    return Task(data, found)


def reranked(options: argparse.Namespace, task: Task, reranker: Reranker, ways: Sequence[str]) -> list[dict[str, Any]]:
    """Return a record of every way, depth and weight."""
    asked = task.data.queries
    pairs = sorted(
        {(asked[query], hit.document.text) for way in ways for query, hits in task.found[way].items() for hit in hits}
    )
    scores = PrecomputedScores(dict(zip(pairs, reranker.score_pairs(pairs).tolist(), strict=True)))
    records = []
    for way in ways:
        hits = task.found[way]
        before = task.ndcg(hits)
        for depth in options.depths:
            for weight in options.weights:
                after = task.ndcg(ordered(task, Reranker(method=scores, weight=weight), hits, depth))
                record = {"set": task.data.name, "way": way, "depth": depth, "weight": weight}
                records.append(record | {"score": estimated(after), "gain": estimated(after - before)})
    return records


def ordered(task: Task, reranker: Reranker, hits: Hits, depth: int) -> Hits:
    """Rerank the first `depth` hits of each query; the others stay behind them."""
    first = [ranked[:depth] for ranked in hits.values()]
    again = reranker.rerank(list(task.data.queries.values()), first)
    return {query: new + old[depth:] for (query, old), new in zip(hits.items(), again, strict=True)}


def mrr(file: Path, reranker: Reranker) -> dict[str, Any]:
    """Return the mean reciprocal rank of the first right answer."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    asked = [row for row in rows if row["positive"] and row["negative"]]
    pairs = [(row["query"], text) for row in asked for text in [*row["negative"], *row["positive"]]]
    scores, ranks = iter(reranker.score_pairs(pairs)), []
    for row in asked:
        wrong = [next(scores) for _ in row["negative"]]
        right = max(next(scores) for _ in row["positive"])
        ranks.append(1 / (1 + sum(score >= right for score in wrong)))
    return {"questions": len(asked), "mrr": estimated(np.array(ranks))}
