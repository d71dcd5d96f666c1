"""What the benchmarks share: where the data lies, how the model is loaded, and estimates as JSON."""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tp_retrieval import Embedder
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs, read_retrieval, read_sts
from tp_retrieval.evaluation.evaluate import cut
from tp_retrieval.evaluation.metrics import Estimate

TOKENS = 256
"""Documents are cut at so many of the model's tokens, as an index of chunks would hold them."""


def load(options: argparse.Namespace, recipe: str, *, whole: bool = False) -> Embedder:
    """Load the model that the options name with a recipe."""
    return Embedder.from_pretrained(options.model, recipe=recipe, device=options.device, dtype=options.dtype, whole=whole)


def read_set(options: argparse.Namespace, name: str, embedder: Embedder, tokens: int = TOKENS) -> RetrievalSet:
    """Read a set of queries and documents, each document cut at so many tokens."""
    return cut(read_retrieval(options.data / "ir" / name), embedder, tokens)


def drawn(data: RetrievalSet, queries: int | None) -> RetrievalSet:
    """Return a set with so many of its queries, always the same ones, and all of its documents."""
    if queries is None or queries >= len(data.queries):
        return data
    names = random.Random(0).sample(sorted(data.queries), queries)
    texts = {name: data.queries[name] for name in names}
    return RetrievalSet(data.name, data.documents, texts, {name: data.grades[name] for name in names})


def read_pairs(options: argparse.Namespace, name: str) -> StsPairs:
    """Read a table of sentence pairs."""
    return read_sts(options.data / "sts" / f"{name}.tsv")


def as_record(estimate: Estimate) -> dict[str, float]:
    """Return an estimate as JSON."""
    return {name: round(value, 2) for name, value in asdict(estimate).items()}


def computed_in(embedder: Embedder) -> dict[str, Any]:
    """Return by which model, in which type and where figures were computed."""
    return {
        "model": Path(embedder.provenance.model).name,
        "dtype": str(embedder.backbone.dtype).removeprefix("torch."),
        "device": str(embedder.backbone.device),
    }
