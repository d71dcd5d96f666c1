"""Texts a second of the fastest recipe and of a trained embedder's architecture through sentence-transformers, in one run.

    python benchmarks/one_block.py [--recipe retrieval-fast] [--against all-MiniLM-L6-v2] [--repeats 5]

Passages of 256 tokens and questions come from examples/data/python-faq. Without `--against` the other side has
the architecture of all-MiniLM-L6-v2 with random weights, which takes the same time, and a vocabulary learnt from the same
texts. Both sides at their defaults, ours in float32 as well; sides alternate, medians are reported. The last column is the
arithmetic of the blocks for the texts' own tokens, as a share of what a plain matrix product of the same type reaches here.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tp_retrieval import Embedder

ROOT = Path(__file__).parents[1]
PASSAGES, QUESTIONS, TOKENS = 256, 1000, 256


def corpus(embedder: Embedder) -> tuple[list[str], list[str]]:
    """Return passages of about 256 tokens and questions, all different."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "examples/data/python-faq").glob("[!l]*.rst.txt")))
    words = re.sub(r"[`*:|=~^-]{2,}|\.\. .*", " ", text).split()
    size = round(TOKENS * len(words) / embedder.count_tokens(" ".join(words)))
    starts = range(0, len(words) - size, max((len(words) - size) // PASSAGES, 1))
    passages = [" ".join(words[i : i + size]) for i in starts]
    passages = [passage for passage in passages if embedder.count_tokens(passage) <= 1.25 * TOKENS][:PASSAGES]
    return passages, [f"Why is {' '.join(words[7 * i : 7 * i + 8])}?" for i in range(QUESTIONS)]


def random_minilm(texts: Sequence[str], folder: Path) -> SentenceTransformer:
    """Return a model of MiniLM's architecture with random weights."""
    learnt = BertWordPieceTokenizer()
    learnt.train_from_iterator(texts, vocab_size=30522, show_progress=False)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt._tokenizer, model_max_length=256, **names)
    tokenizer.save_pretrained(folder)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(384, "mean")], device="cpu")


def rate(embedder: Embedder) -> float:
    """Return the FLOP/s of a matrix product in the embedder's type."""
    width = embedder.backbone.width
    layer, batch = torch.nn.Linear(width, 4 * width, bias=False), torch.randn(2048, width)
    layer, batch = layer.to(embedder.backbone.dtype), batch.to(embedder.backbone.dtype)
    times = []
    with torch.inference_mode():
        for _ in range(40):
            begin = time.perf_counter()
            layer(batch)
            times.append(time.perf_counter() - begin)
    return 2 * 2048 * width * 4 * width / statistics.median(times[10:])


def work(embedder: Embedder, texts: Sequence[str]) -> float:
    """Return the FLOP of the blocks' matrix products for the texts' own tokens."""
    blocks = embedder.backbone.blocks[: embedder.recipe.depth(embedder.backbone.n_blocks)]
    weights = sum(p.numel() for block in blocks for p in block.parameters() if p.dim() == 2)
    return 2.0 * weights * sum(embedder.count_tokens(text) for text in texts)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="retrieval-fast")
    parser.add_argument("--against")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    ours = {name: Embedder.from_pretrained(recipe=options.recipe, dtype=name) for name in ("auto", "float32")}
    passages, questions = corpus(ours["auto"])
    if options.against is not None:
        other = SentenceTransformer(options.against, device="cpu")
    else:
        other = random_minilm(passages, Path(tempfile.mkdtemp()))
    table = Table("texts", "side", "texts/s", "ratio", "of matrix rate")
    for kind, texts, method in (("passages", passages, "embed_documents"), ("questions", questions, "embed_queries")):
        sides: dict[str, Callable[[Sequence[str]], object]] = {
            f"ours, {name}": getattr(embedder, method) for name, embedder in ours.items()
        }
        sides[options.against or "MiniLM's architecture"] = lambda texts: other.encode(list(texts))
        spent: dict[str, list[float]] = {side: [] for side in sides}
        for side in sides.values():
            side(texts[:32])
        for _ in range(options.repeats):
            for name, side in sides.items():
                begin = time.perf_counter()
                side(texts)
                spent[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(times) for name, times in spent.items()}
        base = list(medians.values())[-1]
        for (name, median), embedder in zip(medians.items(), [*ours.values(), None], strict=True):
            share = "" if embedder is None else f"{work(embedder, texts) / median / rate(embedder):.0%}"
            table.add_row(f"{len(texts)} {kind}", name, f"{len(texts) / median:.0f}", f"{base / median:.1f}", share)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
