"""Which of two statements the model would choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tp_retrieval.embedding.tokens import Row


@dataclass(frozen=True)
class Choice:
    """Score by `p(A)` against `p(B)`, from 0 to 1, where A says that the document is relevant."""

    prompt: str = (
        "Passage: {document}\nQuery: {query}\n"
        "A. The passage is relevant to the query.\nB. The passage is not relevant to the query.\nAnswer:"
    )
    chat: bool = False
    answers: tuple[tuple[str, ...], ...] = (("A",), ("B",))

    def positions(self, row: Row) -> range:
        """Return the last position."""
        return range(len(row.ids) - 1, len(row.ids))

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the probability of the first answer among the two."""
        first, second = (logits[0, list(ids)].logsumexp(dim=0) for ids in answers)
        return torch.sigmoid(first - second)
