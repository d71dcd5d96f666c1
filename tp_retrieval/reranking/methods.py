"""Scoring methods on a language model's logits (query likelihood, yes or no, a choice of two), and their protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from tp_retrieval.embedding.forward.tokens import Row
from tp_retrieval.errors import InputError, RecipeError
from tp_retrieval.reranking.prompt import DOCUMENT, QUERY, Prompt
from tp_retrieval.types import Float32Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@runtime_checkable
class PairScorer(Protocol):
    """A scorer of query and document pairs: a method on a language model, a cross-encoder, your own."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair of query and document, `(n,) float32`, higher is better."""


@runtime_checkable
class PromptMethod(Protocol):
    """A score read from a language model's logits over a prompt.

    `answers` are groups of words that may follow the prompt, each group one answer; their first tokens are compared.
    """

    @property
    def prompt(self) -> str:
        """The prompt, with `{query}` and `{document}` once each."""

    @property
    def chat(self) -> bool:
        """Whether the prompt goes through the model's chat template, if it has one."""

    @property
    def answers(self) -> tuple[tuple[str, ...], ...]:
        """The answers that are compared, if any."""

    def positions(self, row: Row) -> range:
        """Return the positions of a row after which logits are needed."""

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the score `()` from the logits `(positions, vocabulary) float32` and the answers' token ids."""


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
        target_logits = logits.gather(1, targets[:, None])[:, 0]
        return (target_logits - logits.logsumexp(dim=1)).mean()


class _NextToken:
    """A method that compares answers as the token after the prompt."""

    def positions(self, row: Row) -> range:
        """Return the last position."""
        return range(len(row.ids) - 1, len(row.ids))


@dataclass(frozen=True)
class YesNo(_NextToken):
    """Score by `logit(yes) - logit(no)` as the next token; words of one answer count together (log-sum-exp)."""

    prompt: str = "Passage: {document}\nQuery: {query}\nDoes the passage answer the query? Answer yes or no.\nAnswer:"
    chat: bool = False
    answers: tuple[tuple[str, ...], ...] = (("yes", "Yes"), ("no", "No"))

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the difference of the two answers' logits."""
        yes, no = (logits[0, list(ids)].logsumexp(dim=0) for ids in answers)
        return yes - no


@dataclass(frozen=True)
class Choice(_NextToken):
    """Score by `p(A)` against `p(B)`, from 0 to 1, where A says that the document is relevant."""

    prompt: str = (
        "Passage: {document}\nQuery: {query}\n"
        "A. The passage is relevant to the query.\nB. The passage is not relevant to the query.\nAnswer:"
    )
    chat: bool = False
    answers: tuple[tuple[str, ...], ...] = (("A",), ("B",))

    def score(self, logits: torch.Tensor, row: Row, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the probability of the first answer among the two."""
        first, second = (logits[0, list(ids)].logsumexp(dim=0) for ids in answers)
        return torch.sigmoid(first - second)


def first_tokens(plain: Tokenizer, prompt: Prompt, answers: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the first token of every word that may follow the prompt, answer by answer.

    A word has a space before it, unless the prompt ends in one. Raises `InputError` if two answers begin with the same
    token, because logits can't tell them apart.
    """
    lead = "" if prompt.source[-1].isspace() else " "
    answer_ids = [sorted({plain.encode(lead + word).ids[0] for word in words}) for words in answers]
    for i, ids in enumerate(answer_ids):
        for other, words in zip(answer_ids[:i], answers, strict=False):
            if set(ids) & set(other):
                raise InputError(f"answers: {answers[i]} and {words} begin with the same token")
    return answer_ids
