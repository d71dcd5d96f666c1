"""Whether the model would say yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tp_retrieval.embedding.tokens import Row


@dataclass(frozen=True)
class YesNo:
    """Score by `logit(yes) - logit(no)` as the next token; words of one answer count together (log-sum-exp)."""

    prompt: str = "Passage: {document}\nQuery: {query}\nDoes the passage answer the query? Answer yes or no.\nAnswer:"
    chat: bool = False
    answers: tuple[tuple[str, ...], ...] = (("yes", "Yes"), ("no", "No"))

    def positions(self, row: Row) -> range:
        """Return the last position."""
        return range(len(row.ids) - 1, len(row.ids))

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the difference of the two answers' logits."""
        yes, no = (logits[0, list(ids)].logsumexp(dim=0) for ids in answers)
        return yes - no
