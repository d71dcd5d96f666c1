"""How often an answer is refused rightly, and how well citations are checked.

python benchmarks/answers.py SET... [--sts FILE...] [--model M] [--questions 40]

Each SET is a folder with corpus.jsonl, queries.jsonl and qrels.tsv. Its own questions should be answered from it, those of
the other sets refused; an area under the curve of 1 tells them apart without fail. Each FILE is a table of sentence pairs:
a paraphrase (score from 85% of the highest) should count as support, another sentence (score to 30%) should not.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tp_retrieval import Answerer, Document, Embedder, Index
from tp_retrieval.answering.answerer import MIN_EVIDENCE
from tp_retrieval.answering.citations import SUPPORT, content_words
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs, read_retrieval, read_sts

_HITS = 3


def main() -> None:
    """Print one line a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--sts", nargs="*", type=Path, default=[])
    parser.add_argument("--model")
    parser.add_argument("--recipe", default="retrieval-fast")
    parser.add_argument("--questions", type=int, default=40)
    options = parser.parse_args()
    for file in options.sts:
        report(f"support, {file.stem}", *support(read_sts(file)), SUPPORT)
    sets = [read_retrieval(folder) for folder in options.sets]
    if not sets:
        return
    embedder = Embedder.from_pretrained(options.model, recipe=options.recipe, whole=True)
    for own in sets:
        report(f"evidence, {own.name}", *evidence(embedder, own, sets, options.questions), MIN_EVIDENCE)


def evidence(
    embedder: Embedder, own: RetrievalSet, sets: Sequence[RetrievalSet], count: int
) -> tuple[list[float], list[float]]:
    """Return the evidence of a set's own questions and of those of other sets, in the hits of a search."""
    rng = random.Random(0)
    others = [question for dataset in sets if dataset is not own for question in dataset.queries.values()]
    asked = [rng.sample(sorted(texts), min(count, len(texts))) for texts in (own.queries.values(), others)]
    answerer = Answerer(embedder, context=1024)
    with tempfile.TemporaryDirectory() as folder, Index.create(Path(folder) / "index", embedder) as index:
        index.add([Document(text, id=id_) for id_, text in own.documents.items()])
        values = [[answerer.evidence(q, index.search(q, _HITS)) for q in questions] for questions in asked]
    return values[0], values[1]


def support(pairs: StsPairs) -> tuple[list[float], list[float]]:
    """Return the share of the first sentence's words that the second has, of paraphrases and of other pairs."""
    most = max(pairs.scores)
    found: tuple[list[float], list[float]] = ([], [])
    for first, second, score in zip(pairs.first, pairs.second, pairs.scores, strict=True):
        words = content_words(first)
        if words and not 0.3 * most < score < 0.85 * most:
            found[score < 0.5 * most].append(len(words & content_words(second)) / len(words))
    return found


def report(name: str, wanted: list[float], unwanted: list[float], threshold: float) -> None:
    """Print how well a value tells two groups apart, and the shares on the right side of a threshold."""
    yes, no = np.array(wanted), np.array(unwanted)
    area = float(np.mean(yes[:, None] > no) + 0.5 * np.mean(yes[:, None] == no))
    print(
        f"{name:24} {len(yes):4} to keep, {len(no):4} to refuse: area {area:.3f}; at {threshold} "
        f"kept {100 * np.mean(yes >= threshold):.0f}%, refused {100 * np.mean(no < threshold):.0f}%",
        flush=True,
    )


if __name__ == "__main__":
    main()
