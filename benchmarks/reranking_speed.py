"""Documents a second of query-likelihood reranking: this project, a plain loop, and plain batches; same weights, one run.

The documents are passages of examples/data/python-faq. "Loop" runs one document at a time through transformers,
"batched" pads them in batches of 8 and 16, as most rerankers do; both compute logits everywhere and read the query's. Sides
alternate within each repeat, medians are reported, and the scores are compared. The last column is the arithmetic of
the documents' and queries' own tokens as a share of what a plain matrix product reaches here.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.speed import corpus, matrix_product_rate
from tp_retrieval import Embedder, Reranker
from tp_retrieval.embedding.model import gguf
from tp_retrieval.reranking.methods import QueryLikelihood

QUERY = "Why are floating-point calculations so inaccurate?"
BEFORE, AFTER = QueryLikelihood().prompt.split("{document}")
ASKED = AFTER.replace("{query}", QUERY)


class Plain:
    """The same score with transformers and nothing else."""

    def __init__(self, folder: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._query_tokens = len(self._tokenizer(" " + QUERY).input_ids)

    def score(self, documents: list[str], size: int) -> np.ndarray:
        """Return mean log-likelihoods, in batches of `size` padded on the left."""
        scores = []
        for begin in range(0, len(documents), size):
            texts = [BEFORE + document + ASKED for document in documents[begin : begin + size]]
            batch = self._tokenizer(texts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                log_probs = self._model(**batch).logits[:, :-1].log_softmax(dim=-1)
            of_query = log_probs.gather(2, batch["input_ids"][:, 1:, None])[:, -self._query_tokens :, 0]
            scores.append(of_query.mean(dim=1).numpy())
        return np.concatenate(scores)


def passages(embedder: Embedder, count: int, tokens: int) -> list[str]:
    """Return passages of about so many tokens."""
    words = " ".join(corpus()[1]).split()
    found: list[str] = []
    begin = 0
    while len(found) < count:
        end = begin + tokens // 2
        while embedder.count_tokens(" ".join(words[begin:end])) < tokens:
            end += 1
        found.append(" ".join(words[begin:end]))
        begin = (begin + len(words) // count) % (len(words) - tokens)
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=200)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return one record a side, and the rate of a plain matrix product."""
    warnings.simplefilter("ignore")
    file = gguf.embedded_model()
    if file is None:
        raise SystemExit(f"the embedded model is missing: {gguf.EMBEDDED_INSTALL}")
    embedder = Embedder.from_pretrained(dtype="float32", device="cpu", whole=True)
    reranker, plain = Reranker(embedder), Plain(str(gguf.unpacked(file)))
    documents = passages(embedder, options.documents, options.tokens)
    sides: dict[str, Callable[[], np.ndarray]] = {
        "tp_retrieval": partial(reranker.score, QUERY, documents),
        "transformers, one at a time": partial(plain.score, documents, 1),
        "transformers, batches of 8": partial(plain.score, documents, 8),
        "transformers, batches of 16": partial(plain.score, documents, 16),
    }
    reranker.score(QUERY, documents[:4])
    spent: dict[str, list[float]] = {side: [] for side in sides}
    scores: dict[str, np.ndarray] = {}
    for _ in range(options.repeats):
        for side, call in sides.items():
            begin = time.perf_counter()
            scores[side] = call()
            spent[side].append(time.perf_counter() - begin)
    rate = matrix_product_rate(torch.float32, "cpu")
    weights = sum(p.numel() for block in embedder.backbone.blocks for p in block.parameters() if p.dim() == 2)
    tokens = sum(embedder.count_tokens(document + ASKED) for document in documents)
    ours = statistics.median(spent["tp_retrieval"])
    records = [
        {
            "side": side,
            "documents_per_second": len(documents) / statistics.median(times),
            "ratio": statistics.median(times) / ours,
            "largest_difference": float(np.abs(scores[side] - scores["tp_retrieval"]).max()),
            "share_of_matrix_product_rate": 2.0 * weights * tokens / statistics.median(times) / rate,
        }
        for side, times in spent.items()
    ]
    sizes = {"documents": len(documents), "tokens of a document": options.tokens, "repeats": options.repeats}
    return sizes | {"matrix product, GFLOP/s": rate / 1e9, "records": records}
