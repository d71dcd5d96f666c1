"""What a scoring method is, and the tokens of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from tp_retrieval.embedding.tokens import Row
from tp_retrieval.errors import InputError
from tp_retrieval.reranking.prompt import Prompt
from tp_retrieval.types import Float32Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@runtime_checkable
class PairScorer(Protocol):
    """Anything that says how well documents answer queries: a method on a language model, a cross-encoder, your own."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair of query and document, `(n,) float32`, higher is better."""


@runtime_checkable
class PromptMethod(Protocol):
    """A way to read a score from a language model's logits over a prompt.

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


def answer_ids(plain: Tokenizer, prompt: Prompt, answers: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the first token of every word that may follow the prompt, answer by answer.

    A word has a space before it, unless the prompt ends in one. Raises `InputError` if two answers begin with the same
    token, because logits can't tell them apart.
    """
    lead = "" if prompt.source[-1].isspace() else " "
    found = [sorted({plain.encode(lead + word).ids[0] for word in words}) for words in answers]
    for i, ids in enumerate(found):
        for other, words in zip(found[:i], answers, strict=False):
            if set(ids) & set(other):
                raise InputError(f"answers: {answers[i]} and {words} begin with the same token")
    return found
