"""What prepending does to attention, and what each map does to vectors: the numbers behind the plots of `analyze`.

geometry(embedder, texts)       # anisotropy and effective rank at every exit, before and after each map
attention(embedder, texts)      # how much of its attention a text's early and late half give to the slot, by block
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tp_retrieval.embedding.backbone import Backbone
from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.forward import Prefix, hidden_states
from tp_retrieval.embedding.postprocess import AffineMap, attainable, unit
from tp_retrieval.embedding.recipe import Prepend
from tp_retrieval.embedding.template import clean
from tp_retrieval.embedding.tokens import Row, TemplateTokenizer, collate
from tp_retrieval.errors import InputError, UnsupportedModelError
from tp_retrieval.evaluation.sweep import READOUTS, Sweep
from tp_retrieval.types import Float32Array, checked_texts

MAPS = ("none", "center", "abtt:1", "whiten:256")


@dataclass(frozen=True)
class Geometry:
    """How a view's unit vectors lie: their mean cosine, and the number of directions that they really use."""

    exit: int | None
    readout: str
    postprocess: str
    anisotropy: float
    effective_rank: float


@dataclass(frozen=True)
class SlotAttention:
    """The share of attention that a block's tokens give to the slot, mean over heads, tokens and texts.

    `early` and `late` are the halves of the text. Without prepending the slot holds nothing; with it, what the text's last
    token knows, which is the only way that early tokens learn of what follows them.
    """

    block: int
    prepending: bool
    early: float
    late: float


def geometry(embedder: Embedder, texts: Sequence[str], *, maps: Sequence[str] = MAPS) -> list[Geometry]:
    """Return anisotropy and effective rank of documents' vectors at every exit, for each readout and map.

    Anisotropy is the mean cosine of two different texts (Ethayarajh, EMNLP 2019), 1 where all point the same way. Effective
    rank is the exponential of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007).
    """
    given = checked_texts(texts)
    if len(given) < 2:
        raise InputError(f"texts: {len(given)} are too few to compare")
    recipe, sweep, found = embedder.recipe, Sweep(embedder), []
    try:
        states = sweep.states(recipe.document[0].source, recipe.prepend, given)
    finally:
        sweep.close()
    for exit_ in states.exits[1:]:
        for readout in READOUTS:
            raw = states.view(exit_, readout)
            for name in maps:
                map_ = AffineMap.fit(attainable(name, raw.shape[1], len(raw)), lambda raw=raw: [raw])  # type: ignore[misc]
                vectors = unit(map_(raw))
                found.append(Geometry(exit_, readout, name, mean_cosine(vectors), effective_rank(vectors)))
    return found


def mean_cosine(vectors: Float32Array) -> float:
    """Return the mean cosine of two different rows of unit vectors `(n, dim)`."""
    exact, count = vectors.astype(np.float64), len(vectors)
    whole = exact.sum(axis=0)
    return float((whole @ whole - np.square(exact).sum()) / (count * (count - 1)))


def effective_rank(vectors: Float32Array) -> float:
    """Return the exponential of the entropy of the singular values of `(n, dim)`: from 1 to the rank."""
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = values[values > 1e-12 * values.max()] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@torch.inference_mode()
def attention(embedder: Embedder, texts: Sequence[str]) -> list[SlotAttention]:
    """Return how much attention the slot of the document template gets in every block, without and with prepending.

    Runs one text at a time and computes attention step by step, so that its weights can be read. Raises `InputError` if
    the recipe rewires no slot or no text has two tokens, `UnsupportedModelError` if a model does not tell its weights.
    """
    recipe, backbone = embedder.recipe, embedder.backbone
    template, prepend = recipe.document[0], recipe.prepend
    if prepend is None or prepend.kind == "echo" or not template.has_slot:
        raise InputError("recipe: its document template has no slot that is rewired; choose one such as prompteol-tp")
    tokenizer = TemplateTokenizer(backbone.tokenizer, backbone.plain_tokenizer, template, recipe.max_tokens)
    cleaned = [clean(text) if recipe.clean else text for text in checked_texts(texts)]
    rows = [replace(row, prefix=0) for row in tokenizer.rows(cleaned) if row.text[1] - row.text[0] > 1]
    if not rows:
        raise InputError("texts: none has two tokens, an early and a late half")
    found = []
    for rewired in (None, prepend):
        shares = np.mean([_shares(backbone, row, rewired) for row in rows], axis=0)  # (blocks, 2)
        found += [SlotAttention(i, rewired is not None, *map(float, halves)) for i, halves in enumerate(shares)]
    return found


def _shares(backbone: Backbone, row: Row, prepend: Prepend | None) -> list[tuple[float, float]]:
    """Return for every block the mean attention of the text's halves to the slot."""
    start, stop = row.text
    middle = (start + stop) // 2
    batch = collate([row]).to(backbone.device)
    with backbone.lock, _weights(backbone) as weights:
        hidden_states(backbone, batch, Prefix(0), {None}, prepend)
    of_slot = [weight[0, :, :, row.slot].float().mean(dim=0) for weight in weights]  # (heads, T, T) -> (T,)
    return [(float(one[start:middle].mean()), float(one[middle:stop].mean())) for one in of_slot]


@contextmanager
def _weights(backbone: Backbone) -> Iterator[list[torch.Tensor]]:
    """Collect each block's attention weights `(1, heads, T, T)` of the passes inside."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: Any) -> None:
        if not isinstance(output, tuple) or len(output) < 2 or output[1] is None:
            raise UnsupportedModelError(f"{type(module).__name__} does not tell its attention weights")
        kept.append(output[1])

    decoder = backbone.decoder
    before = decoder.config._attn_implementation
    attentions = [_attention_of(block) for block in backbone.blocks]
    handles = [module.register_forward_hook(keep) for module in attentions]
    try:
        decoder.set_attn_implementation("eager")
        yield kept
    finally:
        decoder.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


def _attention_of(block: nn.Module) -> nn.Module:
    for name in ("self_attn", "attention", "attn"):
        if isinstance(module := getattr(block, name, None), nn.Module):
            return module
    raise UnsupportedModelError(f"{type(block).__name__} has no attention module by a name that is known")
