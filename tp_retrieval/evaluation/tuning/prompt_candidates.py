"""Prompt candidates: templates with and without demonstrations, and scopes of prepending."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tp_retrieval.embedding.recipe import Prepend, Recipe, View

Task = Literal["sts", "retrieval"]

_ASK = 'means in one word:"'
_COT = "After thinking step by step , "
_KE = (
    "The essence of a {kind} is often captured by its main subjects and actions, while descriptive terms provide "
    "additional but less central details. With this in mind , "
)
_SCOPES = ((1, 2), (1, 5), (3, 5), (1, 7), (3, 7))
_SLOTTED = "<PST> "


@dataclass(frozen=True)
class PromptCandidate:
    """A query and a document template, and the prepending in their slots."""

    name: str
    query: str
    document: str
    prepend: Prepend | None = None

    @property
    def key(self) -> str:
        """A digest of the templates and the prepending."""
        parts = [self.query, self.document, None if self.prepend is None else vars(self.prepend)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def recipe(self, views: Sequence[View], like: Recipe, dense_weight: float | None = None) -> Recipe:
        """Return a recipe of these templates and the given views, otherwise like another."""
        return Recipe(self.query, self.document, views, self.prepend, like.clean, like.max_tokens, dense_weight)

    def rewired(self, where: str, start: int, stop: int) -> PromptCandidate:
        """Return the candidate with prepending in its queries, its documents or both."""
        return PromptCandidate(
            f"{self.name}, tp {start}..{stop}" + ("" if where == "both" else f" on {where}"),
            self.query if where == "documents" else slotted(self.query),
            self.document if where == "queries" else slotted(self.document),
            Prepend("tp", start, stop),
        )

    def bidirectional(self, start: int, stop: int) -> PromptCandidate:
        """Return the candidate with a bidirectional mask in some blocks, from the text's quote on; its tokens stay."""
        query, document = (text.replace(' "{text}"', '<PST> "{text}"') for text in (self.query, self.document))
        prepend = Prepend("bidirectional", start, stop)
        return PromptCandidate(f"{self.name}, bidirectional {start}..{stop}", query, document, prepend)


def prompts(task: Task) -> list[PromptCandidate]:
    """Return the candidates without prepending, the most promising first."""
    if task == "sts":
        return [PromptCandidate(name, text, text) for name, text in _sentence_prompts().items()]
    return [PromptCandidate(name, query, document) for name, (query, document) in _pair_prompts().items()]


def rewirings(task: Task, prompt: PromptCandidate, n_blocks: int) -> list[PromptCandidate]:
    """Return a candidate with each scope of prepending within a model; for retrieval also in the queries alone."""
    scopes = [(start, stop) for start, stop in _SCOPES if stop < n_blocks]
    sides = ("both",) if task == "sts" else ("both", "queries")
    return [prompt.rewired(side, *scope) for scope in scopes for side in sides]


def slotted(template: str) -> str:
    """Return a template with a slot before the quote that opens the text."""
    return template.replace('"{text}"', f'{_SLOTTED}"{{text}}"')


def _sentence_prompts() -> dict[str, str]:
    ask = f'this sentence : "{{text}}" {_ASK}'
    shown = f'This sentence : "A jockey riding a horse." {_ASK}Equestrian".'
    second = f'This sentence : "The stock market fell sharply today." {_ASK}Finance".'
    return {
        "icl": f"{shown}T{ask[1:]}",
        "prompteol": f"T{ask[1:]}",
        "cot": f"{_COT}{ask}",
        "ke": f"{_KE.format(kind='sentence')}{ask}",
        "icl, two examples": f"{shown}{second}T{ask[1:]}",
    }


def _pair_prompts() -> dict[str, tuple[str, str]]:
    question, passage = f'his question : "{{text}}" {_ASK}', f'his passage : "{{text}}" {_ASK}'
    asked = f'This question : "Who rides a horse?" {_ASK}Equestrian".'
    shown = f'This passage : "A jockey riding a horse." {_ASK}Equestrian".'
    asked_two = f'{asked}This question : "Why did share prices go down?" {_ASK}Finance".'
    shown_two = f'{shown}This passage : "The stock market fell sharply today." {_ASK}Finance".'
    return {
        "one example": (f"{asked}T{question}", f"{shown}T{passage}"),
        "plain": (f"T{question}", f"T{passage}"),
        "two examples": (f"{asked_two}T{question}", f"{shown_two}T{passage}"),
        "cot": (f"{_COT}t{question}", f"{_COT}t{passage}"),
        "ke": (f"{_KE.format(kind='question')}t{question}", f"{_KE.format(kind='passage')}t{passage}"),
    }
