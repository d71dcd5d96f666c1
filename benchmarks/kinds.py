"""nDCG@10 of kinds and precisions of an index, on folders in BEIR's layout, against exact search of float32.

Run: python benchmarks/kinds.py FOLDER... [--recipe NAME|FILE] [--kinds scan hnsw] [--rows N]

A folder holds corpus.jsonl[.gz], queries.jsonl and qrels.tsv. Each set is embedded once; kinds are built from its own rows,
however few they are. `--rows` adds noised copies of the documents, which answer nothing, up to so many: the recall of the
ten nearest is that of the set's own queries among all of them. Prints a table and writes benchmarks/results/kinds.json.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from tp_retrieval import Document, Embedder, Index
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.types import Float32Array, Hit

ROOT = Path(__file__).parents[1]
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


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--kinds", nargs="+", default=["scan"])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/kinds.json")
    arguments = parser.parse_args()
    embedder = Embedder.from_pretrained(recipe=arguments.recipe)
    records = []
    table = Table("set", "rows", "kind", "raw", "dense nDCG@10", "hybrid nDCG@10", "recall of exact", "bytes a row")
    for folder in arguments.folders:
        data = cut(read_retrieval(folder), embedder, 256)
        queries = embedder.embed_queries(list(data.queries.values()))
        with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/index", embedder, kind="flat") as index:
            index.add([Document(text, {}, id_) for id_, text in data.documents.items()], show_progress=True)
            if len(index) < arguments.rows:
                held = np.concatenate([raw for _, raw in index._store.documents.vectors()])
                read = held[~np.isnan(held).any(axis=1)]  # of which every view was
                more = noised(read, arguments.rows - len(index))
                index.add([Document("", {}, f"noise-{i}") for i in range(len(more))], vectors=more)
            kinds.TRAIN_AT = min(kinds.TRAIN_AT, len(index))
            exact = None
            variants = [("flat", "float32"), *((kind, "float32") for kind in arguments.kinds)]
            variants += [("flat", "float16"), *((kind, "float16") for kind in arguments.kinds)]
            for kind, raw in variants:
                index.rebuild(kind=kind, raw="float16" if raw == "float16" else "float32")
                hits = found(index, data.queries, queries)
                exact = exact or hits
                scores = judged(hits, exact, data)
                size = index.info().bytes_on_disk / len(index)
                records.append({"set": folder.name, "rows": len(index), "kind": kind, "raw": raw, "bytes": size, **scores})
                numbers = (f"{scores['dense ndcg@10']:.2f}", f"{scores['hybrid ndcg@10']:.2f}", f"{scores['recall']:.4f}")
                table.add_row(folder.name, f"{len(index):,}", kind, raw, *numbers, f"{size:,.0f}")
    Console(width=110).print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
