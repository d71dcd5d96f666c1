"""How likely the document makes the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tp_retrieval.embedding.tokens import Row
from tp_retrieval.errors import RecipeError
from tp_retrieval.reranking.prompt import DOCUMENT, QUERY, Prompt


@dataclass(frozen=True)
class QueryLikelihood:
    """Score by the mean log-probability of the query's tokens after the document (Sachan et al., EMNLP 2022).

    Works on base models, too. An empty query scores 0.
    """

    prompt: str = "Passage: {document}\nPlease write a question based on this passage.\nQuestion: {query}"
    chat: bool = False
    answers: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if Prompt(self.prompt).first == QUERY:
            raise RecipeError(f"prompt: {DOCUMENT} must stand before {QUERY} for its likelihood, in {self.prompt!r}")

    def positions(self, row: Row) -> range:
        """Return the positions before each of the query's tokens; the very first of a row has none before it."""
        start, stop = row.text
        return range(max(start, 1) - 1, max(stop, 1) - 1)

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean log-probability of the query's tokens."""
        targets = torch.tensor([row.ids[at + 1] for at in self.positions(row)], device=logits.device)
        told = logits.gather(1, targets[:, None])[:, 0]
        return (told - logits.logsumexp(dim=1)).mean()
