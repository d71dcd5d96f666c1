"""Readout: hidden states to vectors."""

from __future__ import annotations

import torch
from torch.nn import functional

from tp_retrieval.embedding.forward.tokens import TokenBatch
from tp_retrieval.embedding.recipe import Readout


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
