"""nDCG@10 with and without the trail of headings before a chunk's text, on folders of files.

Run: python -m benchmarks.heading_trail FOLDER... [--recipe NAME]

Queries are the headings that stand over one chunk alone and have two words or more; they are left out of every text. So the
trail is that of the headings above, with and without the file's name before it.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tp_retrieval import Document, Embedder, Index
from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read
from tp_retrieval.indexing.search.query import Mode

K = 10
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
LEAST_WORDS = 15  # of a text that its heading asks for


def dataset(folder: Path, embedder: Embedder) -> tuple[dict[str, list[Document]], dict[str, str]]:
    """Return documents by what stands before their texts, and the id that each query asks for."""
    files = find([folder]).files
    chunks = [part for file in files for part in chunk(read(file, file.stem), 256, embedder.count_tokens)]
    documents: dict[str, list[Document]] = {"no trail": [], "headings above": [], "file and headings above": []}
    asked: list[tuple[str, str]] = []
    for number, part in enumerate(chunks):
        *above, own = part.metadata.get("headings") or [""]
        leads = bool(own) and own in part.text[: len(own) + 80]
        text = part.text.replace(own, "", 1) if leads else part.text
        text = "\n".join(line for line in text.split("\n") if any(map(str.isalnum, line))) or part.text
        if leads and len(own.split()) > 1 and len(text.split()) >= LEAST_WORDS:
            asked.append((own, str(number)))
        for trail, known in zip(([], above, [part.metadata["path"], *above]), documents.values(), strict=True):
            before = f"{' > '.join(trail)}\n\n" if trail else ""
            known.append(Document(before + text, {}, str(number)))
    counts = Counter(query for query, _ in asked)
    return documents, {query: id_ for query, id_ in asked if counts[query] == 1}


def gains(index: Index, asked: dict[str, str], mode: Mode) -> NDArray[np.float64]:
    """Return nDCG@10 of each query, of which one document is relevant."""
    results = index.search([*asked], K, mode=mode)
    ranks = [
        [hit.rank for hit in hits if hit.document.id == id_] for id_, hits in zip(asked.values(), results, strict=True)
    ]
    return np.array([1 / np.log2(1 + rank[0]) if rank else 0.0 for rank in ranks])


def interval(differences: NDArray[np.float64]) -> str:
    """Return a mean and its paired bootstrap interval of 95%, in points."""
    generator = np.random.default_rng(0)
    means = [generator.choice(differences, len(differences)).mean() for _ in range(2000)]
    low, high = 100 * np.percentile(means, [2.5, 97.5])
    return f"{100 * differences.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--recipe", default="retrieval-balanced")
    arguments = parser.parse_args()
    embedder = Embedder.from_pretrained(recipe=arguments.recipe)
    table = Table("folder", "queries", "mode", "before the text", "nDCG@10", "difference [95%]", box=None)
    for folder in arguments.folders:
        documents, asked = dataset(folder, embedder)
        without: dict[Mode, NDArray[np.float64]] = {}
        for trail, known in documents.items():
            with tempfile.TemporaryDirectory() as place, Index.create(f"{place}/index", embedder) as index:
                index.add(known)
                for mode in MODES:
                    found = gains(index, asked, mode)
                    difference = found - without.setdefault(mode, found)
                    row = (folder.name, str(len(asked)), mode, trail, f"{100 * found.mean():.1f}", interval(difference))
                    table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
