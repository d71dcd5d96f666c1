"""nDCG@10 of kinds and precisions of an index, on folders in BEIR's layout, against exact search of float32.

Each set is embedded once; kinds are built from its own rows, however few they are. `--rows` adds noised copies of the
documents, which answer nothing, up to so many: the recall of the ten nearest is that of the set's own queries among them.
"""

import argparse
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from benchmarks.common import computed_in, load, read_set
from tp_retrieval import Document, Index
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import RetrievalSet
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.types import Float32Array, Hit

SETS = ("python-faq", "cranfield", "xquad-en", "scifact")
K = 10
Mode = Literal["dense", "hybrid"]


def found(index: Index, queries: Mapping[str, str], raw: Float32Array) -> dict[Mode, list[list[Hit]]]:
    """Return the hits of dense and of hybrid searches."""
    texts = queries.values()
    return {
        "dense": [index.search_by_vector(vector, K) for vector in raw],
        "hybrid": [index.search_by_vector(vector, K, text=text) for vector, text in zip(raw, texts, strict=True)],
    }


def judged(
    hits: Mapping[Mode, list[list[Hit]]], exact: Mapping[Mode, list[list[Hit]]], data: RetrievalSet
) -> dict[str, float]:
    """Return nDCG@10 of both modes, and the share of exact search's ten documents that came out."""
    scores = {}
    for mode, of_queries in hits.items():
        run = {
            query: [str(hit.document.id) for hit in found] for query, found in zip(data.queries, of_queries, strict=True)
        }
        scores[f"{mode} ndcg@10"] = 100 * float(metrics.retrieval(run, data.grades)["ndcg@10"].mean())
    ids = [[{hit.document.id for hit in found} for found in side["dense"]] for side in (hits, exact)]
    scores["recall"] = float(np.mean([len(got & want) / len(want) for got, want in zip(*ids, strict=True)]))
    return scores


def noised(rows: Float32Array, count: int) -> Float32Array:
    """Return so many raw rows, each a row with noise at half the distance to another row of the set."""
    rng = np.random.default_rng(0)
    first, other = rows[rng.integers(0, len(rows), count)], rows[rng.integers(0, len(rows), count)]
    noise = rng.standard_normal(first.shape).astype(np.float32)
    distances = np.linalg.norm(first - other, axis=1, keepdims=True)
    moved: Float32Array = first + 0.5 * distances * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return moved


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--recipe", default="retrieval-balanced")
    parser.add_argument("--kinds", nargs="+", default=["scan"])
    parser.add_argument("--rows", type=int, default=0)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return a record of every set, kind and precision."""
    embedder = load(options, options.recipe)
    figures: dict[str, Any] = computed_in(embedder) | {"recipe": options.recipe, "records": []}
    variants = [(kind, raw) for raw in ("float32", "float16") for kind in ("flat", *options.kinds)]
    for name in options.sets:
        data = read_set(options, name, embedder)
        queries = embedder.embed_queries(list(data.queries.values()))
        with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/index", embedder, kind="flat") as index:
            index.add([Document(text, {}, id_) for id_, text in data.documents.items()])
            if len(index) < options.rows:
                held = np.concatenate([raw for _, raw in index._store.documents.vectors()])
                read = held[~np.isnan(held).any(axis=1)]  # of which every view was
                more = noised(read, options.rows - len(index))
                index.add([Document("", {}, f"noise-{i}") for i in range(len(more))], vectors=more)
            kinds.TRAIN_AT = min(kinds.TRAIN_AT, len(index))
            exact = None
            for kind, precision in variants:
                index.rebuild(kind=kind, raw="float16" if precision == "float16" else "float32")
                hits = found(index, data.queries, queries)
                exact = exact or hits
                record = {"set": name, "rows": len(index), "kind": kind, "raw": precision} | judged(hits, exact, data)
                figures["records"].append(record | {"bytes of a row": index.info().bytes_on_disk / len(index)})
                print(figures["records"][-1], flush=True)
    return figures
