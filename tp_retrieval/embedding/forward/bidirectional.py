"""A bidirectional mask in some blocks: what prepending is compared with (arXiv 2412.11556 calls it naive).

The weights are as they were: a block's attention mask alone is another, for the time of one forward pass.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tp_retrieval.embedding.forward.tokens import TokenBatch
from tp_retrieval.embedding.recipe import Prepend
from tp_retrieval.errors import UnsupportedModelError

IMPLEMENTATIONS = ("sdpa", "eager")
"""Implementations of attention that take a mask of queries and keys."""


@contextmanager
def bidirectional(
    blocks: Sequence[nn.Module], prepend: Prepend, batch: TokenBatch, prefix_length: int, implementation: str
) -> Iterator[None]:
    """Let the tokens of every row after its prefix see each other in blocks `start..stop`, in both directions.

    Who sees whom backwards is left to the model: a token also sees the ones that see it. So a sliding window reaches as far
    forwards as backwards, the prefix sees nothing after it, and padding is seen by no token of a row. Rows of a template
    without a slot are left as they are. Raises `UnsupportedModelError` where the mask can't be widened.
    """
    if batch.bidirectional is None:
        yield
        return
    if implementation not in IMPLEMENTATIONS:
        known = " or ".join(IMPLEMENTATIONS)
        raise UnsupportedModelError(
            f"bidirectional: attention by {implementation!r} takes no mask; load with attn_implementation={known}"
        )
    owner = threading.get_ident()
    mutual = _mutual(batch)
    widened: list[tuple[Any, torch.Tensor]] = []  # blocks of one kind share a mask

    def with_wider_mask(
        block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return a block's arguments with the mask in which tokens of the text see one another; None in another thread."""
        if threading.get_ident() != owner or mutual.shape[-1] < 2:
            return None
        names = list(inspect.signature(block.forward).parameters)
        if "attention_mask" not in names:
            raise UnsupportedModelError(f"bidirectional: {type(block).__name__} takes no attention mask")
        position = names.index("attention_mask")
        mask = args[position] if position < len(args) else kwargs.get("attention_mask")
        made = next((wide for known, wide in widened if known is mask), None)
        if made is None:
            made = _widened(mask, mutual, prefix_length)
            widened.append((mask, made))
        if position < len(args):
            return (*args[:position], made, *args[position + 1 :]), kwargs
        return args, {**kwargs, "attention_mask": made}

    hooks = [
        block.register_forward_pre_hook(with_wider_mask, with_kwargs=True) for block in blocks[prepend.start : prepend.stop]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mutual(batch: TokenBatch) -> torch.Tensor:
    """Return which tokens of a row see each other, `(B, 1, T, T) bool`: those after the prefix, padding left out."""
    position = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    real = (position <= batch.last[:, None]) & (position >= (batch.bidirectional or 0))  # (B, T)
    return (real[:, :, None] & real[:, None, :])[:, None]


def _widened(mask: Any, mutual: torch.Tensor, prefix_length: int) -> torch.Tensor:
    """Return a mask `(B, 1, T, P + T)` in which mutual tokens see those that see them, of the same kind as the given one.

    A mask is boolean, or holds what is added to the scores: 0, or the lowest number where a token is not seen. None is
    causal attention.
    """
    width = mutual.shape[-1]
    if mask is None:
        mask = torch.ones((width, prefix_length + width), dtype=torch.bool, device=mutual.device).tril(prefix_length)
        mask = mask[None, None]
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4 or mask.shape[-2:] != (width, prefix_length + width):
        shape = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise UnsupportedModelError(f"bidirectional: an attention mask of {shape} is not one of queries and keys")
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if mask.dtype != torch.bool and bool((mask[seen] != 0).any()):
        raise UnsupportedModelError("bidirectional: the attention mask holds positions, too, which have no future in it")
    own = seen[..., prefix_length:]
    own = own | (own.transpose(-1, -2) & mutual)  # (B, 1, T, T)
    before = seen[..., :prefix_length].expand(*own.shape[:-1], prefix_length)
    wide = torch.cat([before, own], dim=-1)
    if mask.dtype == torch.bool:
        return wide
    return torch.zeros_like(wide, dtype=mask.dtype).masked_fill(~wide, torch.finfo(mask.dtype).min)
