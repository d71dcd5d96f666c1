"""Texts per second of this project and of sentence-transformers: same weights, same prompts, one run.

384 short sentences and 64 passages of about 300 tokens come from examples/data/python-faq. sentence-transformers pools
the last token, at its defaults (float32, batches of 32) and once more in bfloat16. Sides alternate within each repeat;
medians are reported. The last column is the arithmetic that the texts' own tokens need, per second, as a share of what
a plain matrix product of the same type reaches on this machine.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.forward.batching import Batching
from tp_retrieval.embedding.model import gguf
from tp_retrieval.embedding.recipe import Prepend, View

ROOT = Path(__file__).parents[1]
PROMPT = 'This sentence : <PST> "{text}" means in one word:"'
DEMONSTRATED = 'This sentence : "A jockey riding a horse." means in one word:"Equestrian".' + PROMPT
SHORT, PASSAGES = 384, 64
_PRODUCTS = 4  # of one timing
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def corpus() -> tuple[list[str], list[str]]:
    """Return 384 sentences of 6 to 16 words and 64 passages of 200 words."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "examples/data/python-faq").glob("[!l]*.rst.txt")))
    text = re.sub(r"[`*:|=~^-]{2,}|\.\. .*", " ", text)
    sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.?])\s+", text)]
    short = [s for s in sentences if 6 <= len(s.split()) <= 16][:SHORT]
    words = text.split()
    return short, [" ".join(words[i * 200 : (i + 1) * 200]) for i in range(PASSAGES)]


def ours(prompt: str, dtype: str, device: str) -> Embedder:
    """Return an embedder with token prepending and the measured exit."""
    return Embedder.from_pretrained(
        recipe=Recipe(prompt, prompt, [View(28)], Prepend("tp", 1, 2)), dtype=dtype, device=device
    )


def theirs(dtype: torch.dtype, device: str) -> SentenceTransformer:
    """Return the same weights under sentence-transformers with last-token pooling."""
    file = gguf.embedded_model()
    if file is None:
        raise SystemExit(f"the embedded model is missing: {gguf.EMBEDDED_INSTALL}")
    transformer = Transformer(str(gguf.unpacked(file)), model_kwargs={"dtype": dtype})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[transformer, pooling], device=device)


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def matrix_product_rate(dtype: torch.dtype, device: str) -> float:
    """Return the FLOP/s of products of the shape that dominates this model, as many tokens at once as a batch has."""
    tokens = Batching(torch.device(device)).budget
    layer = torch.nn.Linear(576, 1536, bias=False).to(device, dtype)
    batch = torch.randn(tokens, 576).to(device, dtype)

    def products() -> None:
        for _ in range(_PRODUCTS):
            layer(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    with torch.inference_mode():
        times = [seconds(products) for _ in range(20)]
    return _PRODUCTS * 2 * tokens * 576 * 1536 / statistics.median(times[5:])


def work(embedder: Embedder, texts: list[str], prompt: str) -> float:
    """Return the FLOP of the blocks' matrix products for the tokens of the texts and of the prompt's tail."""
    tail = embedder.count_tokens(prompt.split("<PST>")[1].replace("{text}", "")) + 1
    tokens = sum(embedder.count_tokens(text) + tail for text in texts)
    weights = sum(p.numel() for block in embedder._backbone.blocks for p in block.parameters() if p.dim() == 2)
    return 2.0 * weights * tokens


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--repeats", type=int, default=3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return one record a case and side, and the rates of plain matrix products."""
    device = options.device or "cpu"
    rates = {name: matrix_product_rate(dtype, device) for name, dtype in DTYPES.items()}
    rivals = {name: theirs(dtype, device) for name, dtype in DTYPES.items()}
    records: list[dict[str, Any]] = []
    short, passages = corpus()
    for prompt_name, prompt in (("plain prompt", PROMPT), ("one demonstration", DEMONSTRATED)):
        embedders = {name: ours(prompt, name, device) for name in DTYPES}
        for texts_name, texts in ((f"{len(short)} sentences", short), (f"{len(passages)} passages", passages)):
            prompted = [prompt.replace("<PST> ", "").replace("{text}", text) for text in texts]
            calls: dict[str, Callable[[], object]] = {}
            for name in DTYPES:
                calls[f"tp_retrieval {name}"] = partial(embedders[name].embed_documents, texts)
                calls[f"sentence-transformers {name}"] = partial(rivals[name].encode, prompted)
            embedders["float32"].embed_documents(texts[:4])
            spent: dict[str, list[float]] = {side: [] for side in calls}
            for _ in range(options.repeats):
                for side, call in calls.items():
                    spent[side].append(seconds(call))
            base = statistics.median(spent["sentence-transformers float32"])
            for side, times in spent.items():
                median = statistics.median(times)
                dtype = side.split()[1]
                share = work(embedders[dtype], texts, prompt) / median / rates[dtype] if side[0] == "t" else None
                records.append(
                    {
                        "prompt": prompt_name,
                        "texts": texts_name,
                        "side": side,
                        "texts_per_second": len(texts) / median,
                        "ratio_to_sentence_transformers_default": base / median,
                        "share_of_matrix_product_rate": share,
                    }
                )
    products = {name: rate / 1e9 for name, rate in rates.items()}
    return {"device": device, "repeats": options.repeats, "matrix products, GFLOP/s": products, "records": records}
