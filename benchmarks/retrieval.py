"""nDCG@10 of words alone, of vectors alone and of both, on folders in BEIR's layout.

Run: python benchmarks/retrieval.py FOLDER... [--recipe NAME|FILE]... [--map NAME]... [--against SENTENCE_TRANSFORMER]...

A folder holds corpus.jsonl[.gz], queries.jsonl and qrels.tsv. Texts are cut at a number of the model's tokens, as an
index of chunks would hold them. Each map is tried on the same vectors, by `Index.rebuild`. Prints a table and writes
benchmarks/results/retrieval.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tp_retrieval import Document, Embedder, Index
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.baseline import TrainedEmbedder
from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.types import TextEmbedder

ROOT = Path(__file__).parents[1]
WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6)


def score(data: RetrievalSet, embedder: TextEmbedder, maps: Sequence[str | None]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield, for each map, nDCG@10 by way of searching."""
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", embedder, kind="flat") as index:
        index.add([Document(text, {}, id_) for id_, text in data.documents.items()], show_progress=True)
        for postprocess in maps:
            index.rebuild(postprocess=postprocess)
            yield postprocess or "+".join(index.info().fitted), judge(index, data)


def judge(index: Index, data: RetrievalSet) -> dict[str, float]:
    """Return nDCG@10 for each way of searching."""
    ways: dict[str, SearchOptions] = {"lexical": {"mode": "lexical"}, "dense": {"mode": "dense"}}
    for weight in WEIGHTS:
        ways[f"hybrid {weight}"] = {"dense_weight": weight}
    ways["reciprocal rank 0.5"] = {"dense_weight": 0.5, "fusion": "reciprocal-rank"}
    scores = {}
    for name, way in ways.items():
        results = index.search(list(data.queries.values()), 10, **way)
        run = {query: [str(hit.document.id) for hit in hits] for query, hits in zip(data.queries, results, strict=True)}
        scores[name] = 100 * float(metrics.retrieval(run, data.grades)["ndcg@10"].mean())
    return scores


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe", action="append", help="may be given several times; by default retrieval")
    parser.add_argument("--map", action="append", help="none, center, abtt:K, whiten:D; by default what the recipe says")
    parser.add_argument("--against", action="append", help="name or folder of a sentence-transformers model")
    parser.add_argument("--model")
    parser.add_argument("--max-tokens-of-text", type=int, default=256)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/retrieval.json")
    arguments = parser.parse_args()
    records = []
    table = Table("set", "recipe", "map", "lexical", "dense", *(f"hybrid {w}" for w in WEIGHTS), "RRF", "minutes")
    counter = Embedder.from_pretrained(arguments.model)
    recipes = arguments.recipe or ([] if arguments.against else ["retrieval"])
    embedders = {recipe: partial(Embedder.from_pretrained, arguments.model, recipe=recipe) for recipe in recipes}
    embedders |= {name: partial(TrainedEmbedder, name) for name in arguments.against or []}
    for recipe, load in embedders.items():
        embedder = load()
        for folder in arguments.folders:
            begin = time.perf_counter()
            data = cut(read_retrieval(folder), counter, arguments.max_tokens_of_text)
            for map_, scores in score(data, embedder, arguments.map or [None]):
                minutes = (time.perf_counter() - begin) / 60
                records.append({"set": folder.name, "recipe": recipe, "map": map_, "ndcg@10": scores, "minutes": minutes})
                figures = (f"{value:.1f}" for value in scores.values())
                table.add_row(folder.name, Path(recipe).stem, map_, *figures, f"{minutes:.1f}")
            Console(width=140).print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
