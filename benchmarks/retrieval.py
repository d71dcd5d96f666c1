"""nDCG@10 of words alone, of vectors alone and of both, on folders in BEIR's layout.

Run: python benchmarks/retrieval.py FOLDER... [--recipe NAME|FILE]... [--map NAME]... [--against SENTENCE_TRANSFORMER]...

A folder holds corpus.jsonl[.gz], queries.jsonl and qrels.tsv. Texts are cut at a number of the model's tokens, as an
index of chunks would hold them. Each map is tried on the same vectors, by `Index.rebuild`. Prints a table and writes
benchmarks/results/retrieval.json.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import ir_measures
import numpy as np
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from tp_retrieval import Document, Embedder, Index
from tp_retrieval.types import TextEmbedder

ROOT = Path(__file__).parents[1]
WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6)
NDCG = ir_measures.nDCG @ 10


def lines(file: Path) -> list[dict[str, str]]:
    """Read a .jsonl file, compressed or not."""
    packed = file.with_name(file.name + ".gz")
    text = file.read_text() if file.exists() else gzip.decompress(packed.read_bytes()).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def cut(text: str, tokens: int, embedder: Embedder) -> str:
    """Return the longest run of whole words from the start that has at most so many tokens."""
    words = text.split(" ")
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if embedder.count_tokens(" ".join(words[:middle])) <= tokens else (low, middle - 1)
    return " ".join(words[:low])


def documents(folder: Path, tokens: int, counter: Embedder) -> list[Document]:
    """Return a set's documents, title and text cut at a number of the model's tokens."""
    titled = ((d["_id"], f"{d.get('title') or ''}\n{d['text']}".strip() or ".") for d in lines(folder / "corpus.jsonl"))
    return [Document(cut(text, tokens, counter), {}, id_) for id_, text in titled]


class Trained:
    """A sentence-transformers model as an index's embedder."""

    def __init__(self, name: str) -> None:
        self._model = SentenceTransformer(name, device="cpu")
        self.dimension = self._model.get_embedding_dimension()
        self.fingerprint = name

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text."""
        return self._model.encode(list(texts), show_progress_bar=False)

    embed_queries = embed_documents


def score(
    folder: Path, embedder: TextEmbedder, counter: Embedder, tokens: int, maps: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield, for each map, nDCG@10 by way of searching; `counter` counts the tokens at which texts are cut."""
    rows = [line.split("\t") for line in (folder / "qrels.tsv").read_text().split("\n")[1:] if line]
    qrels = [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in rows]
    judged = {qrel.query_id for qrel in qrels}
    queries = {q["_id"]: q["text"] for q in lines(folder / "queries.jsonl") if q["_id"] in judged}

    with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/index", embedder, kind="flat") as index:
        index.add(documents(folder, tokens, counter), show_progress=True)
        for postprocess in maps or [None]:
            index.rebuild(postprocess=postprocess)
            yield postprocess or "+".join(index.info().fitted), judge(index, queries, qrels)


def judge(index: Index, queries: Mapping[str, str], qrels: Sequence[ir_measures.Qrel]) -> dict[str, float]:
    """Return nDCG@10 for each way of searching."""
    ways = {"lexical": {"mode": "lexical"}, "dense": {"mode": "dense"}}
    ways |= {f"hybrid {weight}": {"dense_weight": weight} for weight in WEIGHTS}
    ways["reciprocal rank 0.5"] = {"dense_weight": 0.5, "fusion": "reciprocal-rank"}
    found = {}
    for name, way in ways.items():
        results = index.search(list(queries.values()), 10, **way)
        run = [
            ir_measures.ScoredDoc(query, str(hit.document.id), -hit.rank)
            for query, hits in zip(queries, results, strict=True)
            for hit in hits
        ]
        found[name] = 100 * ir_measures.calc_aggregate([NDCG], qrels, run)[NDCG]
    return found


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
    embedders |= {name: partial(Trained, name) for name in arguments.against or []}
    for recipe, load in embedders.items():
        embedder = load()
        for folder in arguments.folders:
            begin = time.perf_counter()
            for map_, found in score(folder, embedder, counter, arguments.max_tokens_of_text, arguments.map):
                minutes = (time.perf_counter() - begin) / 60
                records.append({"set": folder.name, "recipe": recipe, "map": map_, "ndcg@10": found, "minutes": minutes})
                figures = (f"{value:.1f}" for value in found.values())
                table.add_row(folder.name, Path(recipe).stem, map_, *figures, f"{minutes:.1f}")
            Console(width=140).print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
