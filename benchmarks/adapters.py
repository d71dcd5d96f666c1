"""What the frameworks' adapters cost over the engine: 1,000 short texts embedded, 1,000 searches, in one run.

The texts are stretches of 6 to 16 words of examples/data/python-faq. Sides take turns in changing order; the median of a
side's repeats is divided by that of the engine. Runs of half a minute differ by some percent on a shared machine; so the
adapters' own work is timed, too, with an engine that has the vectors at hand. Searches run over an index of the same
texts, once with the model and once with cached query vectors, where the adapter's share is largest.
"""

import argparse
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from tp_retrieval import CachedEmbedder, Embedder
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.integrations.langchain import TPEmbeddings, TPVectorStore
from tp_retrieval.integrations.llama_index import TPEmbedding
from tp_retrieval.integrations.sentence_transformers import TPModule
from tp_retrieval.types import Float32Array

ROOT = Path(__file__).parents[1]
COUNT = 1000


def corpus() -> list[str]:
    """Return 1,000 different stretches of 6 to 16 words."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "examples/data/python-faq").glob("[!l]*.rst.txt")))
    words = re.sub(r"[`*:|=~^-]{2,}|\.\. ", " ", text).split()
    chance, begin = random.Random(0), 0
    texts: list[str] = []
    while len(texts) < COUNT:
        length = chance.randint(6, 16)
        texts.append(" ".join(words[begin : begin + length]))
        begin += length
    return texts


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def taking_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each call."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats):
        for name in sorted(calls, reverse=i % 2 == 1):
            spent[name].append(seconds(calls[name]))
    return {name: statistics.median(times) for name, times in spent.items()}


def embedding(embedder: Embedder, texts: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Return the seconds of the engine and of each adapter, with the model and with the vectors at hand."""
    module = SentenceTransformer(modules=[TPModule.from_embedder(embedder), Normalize()], device="cpu")
    calls: dict[str, Callable[[], object]] = {
        "Embedder": partial(embedder.embed_documents, texts),
        "LangChain TPEmbeddings": partial(TPEmbeddings.from_embedder(embedder).embed_documents, texts),
        "LlamaIndex TPEmbedding": partial(TPEmbedding.from_embedder(embedder).get_text_embedding_batch, texts),
        "sentence-transformers TPModule, batch_size=32": partial(module.encode_document, texts),
        "sentence-transformers TPModule, batch_size=1000": partial(module.encode_document, texts, batch_size=1000),
    }
    vectors = dict(zip(texts, embedder.embed_documents(texts), strict=True))

    def at_hand(_: Embedder, wanted: list[str], **options: object) -> Float32Array:
        return np.stack([vectors[text] for text in wanted])

    with patch.object(Embedder, "embed_documents", at_hand):
        own = taking_turns({name: call for name, call in calls.items() if name != "Embedder"}, 5)
    return {"with the model": taking_turns(calls, repeats), "with the vectors at hand": own}


def searching(embedder: Embedder, texts: list[str]) -> dict[str, dict[str, float]]:
    """Return the seconds of 1,000 searches through the index and through LangChain's store, by turns."""
    spent: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        unit = UnitEmbedder.of(embedder)
        cached = CachedEmbedder(unit, Path(folder) / "vectors.sqlite")
        cached.embed_queries(texts)
        for name, cache in (("with the model", None), ("with cached query vectors", str(Path(folder) / "vectors.sqlite"))):
            embeddings = TPEmbeddings.from_embedder(embedder, cache=cache)
            store = TPVectorStore.from_texts(texts, embeddings, path=Path(folder) / name)
            index = store.index
            store.similarity_search(texts[0])
            times = {"Index": 0.0, "LangChain TPVectorStore": 0.0}
            for i, text in enumerate(texts):
                sides: list[tuple[str, Callable[[], object]]] = [
                    ("Index", partial(index.search, text, 4, mode="dense")),
                    ("LangChain TPVectorStore", partial(store.similarity_search, text, 4)),
                ]
                for side, call in sides if i % 2 else reversed(sides):
                    times[side] += seconds(call)
            spent[name] = times
            store.close()
        cached.close()
    return spent


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--repeats", type=int, default=3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of every side, by what it did."""
    texts = corpus()
    embedder = Embedder.from_pretrained(dtype="float32", device=options.device)
    seconds_of = {f"{COUNT:,} searches, {name}": spent for name, spent in searching(embedder, texts).items()}
    seconds_of |= {f"{COUNT:,} texts, {name}": spent for name, spent in embedding(embedder, texts, options.repeats).items()}
    return {"seconds": seconds_of}
