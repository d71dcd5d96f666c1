"""The effect of prepending on attention.

slot_attention(embedder, texts)   # the share that a text's early and late half give to the slot, block by block
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.forward.forward import Prefix, hidden_states
from tp_retrieval.embedding.forward.tokens import Row, TemplateTokenizer, collate
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend
from tp_retrieval.embedding.template import clean
from tp_retrieval.errors import InputError, UnsupportedModelError
from tp_retrieval.types import checked_texts


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


@torch.inference_mode()
def slot_attention(embedder: Embedder, texts: Sequence[str]) -> list[SlotAttention]:
    """Return the attention on the slot of the document template in every block, without and with prepending.

    Runs one text at a time and computes attention step by step, so that its weights can be read. Raises `InputError` if
    the recipe rewires no slot or no text has two tokens, `UnsupportedModelError` if a model does not tell its weights.
    """
    recipe, backbone = embedder.recipe, embedder.backbone
    template, prepend = recipe.document[0], recipe.prepend
    if prepend is None or prepend.kind in ("echo", "bidirectional") or not template.has_slot:
        raise InputError("recipe: its document template has no slot that is rewired; choose one such as prompteol-tp")
    tokenizer = TemplateTokenizer(
        backbone.tokenizer, backbone.plain_tokenizer, template, recipe.max_tokens, kind=prepend.kind
    )
    cleaned = [clean(text) if recipe.clean else text for text in checked_texts(texts)]
    rows = [replace(row, prefix=0) for row in tokenizer.rows(cleaned) if row.text[1] - row.text[0] > 1]
    if not rows:
        raise InputError("texts: none has two tokens, an early and a late half")
    attention = []
    for rewired in (None, prepend):
        shares = np.mean([_shares(backbone, row, rewired) for row in rows], axis=0)  # (blocks, 2)
        attention += [SlotAttention(i, rewired is not None, *map(float, halves)) for i, halves in enumerate(shares)]
    return attention


def _shares(backbone: Backbone, row: Row, prepend: Prepend | None) -> list[tuple[float, float]]:
    """Return for every block the mean attention of the text's halves to the slot."""
    start, stop = row.text
    middle = (start + stop) // 2
    batch = collate([row]).to(backbone.device)
    with backbone.lock, _weights(backbone) as weights:
        hidden_states(backbone, batch, Prefix(0), {None}, prepend)
    of_slot = [weight[0, :, :, row.slot].float().mean(dim=0) for weight in weights]  # (heads, T, T) -> (T,)
    return [(float(share[start:middle].mean()), float(share[middle:stop].mean())) for share in of_slot]


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
