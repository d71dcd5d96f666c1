"""Readout: hidden states to vectors."""

from __future__ import annotations

import torch
from torch.nn import functional

from tp_retrieval.embedding.forward.tokens import TokenBatch
from tp_retrieval.embedding.recipe import Readout


def read_stretches(hidden: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """Return the mean of every stretch, slots left out, `(B, T, H)` -> `(S, H)` float32."""
    if batch.stretches is None:
        return hidden.new_zeros((0, hidden.shape[2]), dtype=torch.float32)
    row, start, stop = batch.stretches.unbind(dim=1)
    position = torch.arange(hidden.shape[1], device=hidden.device)
    mask = (position >= start[:, None]) & (position < stop[:, None])  # (S, T)
    if batch.slots is not None:
        slots = batch.slots[row, :, 0]
        mask[torch.arange(len(mask), device=mask.device)[:, None], slots] = False
    weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
    rows, counts = torch.unique_consecutive(row, return_counts=True)
    parts = zip(rows.tolist(), torch.split(weights, counts.tolist()), batch.text[rows].tolist(), strict=True)
    return torch.cat([of_row[:, begin:end] @ hidden[i, begin:end].float() for i, of_row, (begin, end) in parts])


def read(hidden: torch.Tensor, batch: TokenBatch, readout: Readout) -> torch.Tensor:
    """Return one vector a row, `(B, T, H)` -> `(B, H)` float32.

    `last` is the row's last token, `mean` the mean over the text's own tokens, slots left out (the last token where the
    text has none), `last+mean` the average of both after L2 normalisation.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    final = hidden[rows, batch.last].float()  # (B, T, H) -> (B, H)
    if readout == "last":
        return final
    position = torch.arange(hidden.shape[1], device=hidden.device)
    mask = (position >= batch.text[:, :1]) & (position < batch.text[:, 1:])  # (B, T)
    if batch.slots is not None:
        mask[rows[:, None], batch.slots[:, :, 0]] = False
    count = mask.sum(dim=1, keepdim=True)
    total = torch.where(mask[:, :, None], hidden.float(), 0.0).sum(dim=1)  # (B, T, H) -> (B, H)
    mean = torch.where(count > 0, total / count.clamp(min=1), final)
    if readout == "mean":
        return mean
    return (functional.normalize(final, dim=-1) + functional.normalize(mean, dim=-1)) / 2
