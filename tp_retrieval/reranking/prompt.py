"""Query and document in a prompt, as token rows.

As in the embedding templates, prompt and texts meet only as token ids. What lies between two special tokens is tokenised
together, because BPE merges across the borders of a text; where the texts lie is known from character offsets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tp_retrieval.embedding.forward.tokens import Row, literal_ids, special_tokens, start_ids, tokens_between, tokens_kept
from tp_retrieval.errors import InputError, RecipeError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

QUERY, DOCUMENT = "{query}", "{document}"
_FIELDS = (QUERY, DOCUMENT)


@dataclass(frozen=True)
class Prompt:
    """A prompt with `{query}` and `{document}` once each; whitespace counts as written.

    Raises `RecipeError` for anything else.
    """

    source: str
    parts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise RecipeError(f"prompt: expected a string, got {type(self.source).__name__} {self.source!r}")
        for mark in _FIELDS:
            count = self.source.count(mark)
            if count != 1:
                raise RecipeError(f"prompt: {mark} must stand once, found {count} times in {self.source!r}")
        object.__setattr__(self, "parts", tuple(re.split(r"(\{query\}|\{document\})", self.source)))

    @property
    def first(self) -> str:
        """The field that comes first."""
        return self.parts[1]

    def as_chat(self, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """Return the prompt in the model's own chat template, without what the tokenizer puts before every text.

        The prompt is the user's message, and the model's answer comes after it. Where the prompt ends in the query, the
        query is that answer. Raises `InputError` if the model has no chat template.
        """
        if not tokenizer.chat_template:
            raise InputError("chat: this model has no chat template; leave it off")
        message, answer = self.source, ""
        if message.endswith(QUERY):
            message, answer = message.removesuffix(QUERY).rstrip(), QUERY
        said = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
        start = tokenizer.decode(start_ids(tokenizer))
        return Prompt(str(said).removeprefix(str(start)) + answer)


@dataclass(frozen=True)
class _Stretch:
    """A run of a prompt: fields and the words around them, or, without fields, the ids of the prompt's own words."""

    parts: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


class PromptTokenizer:
    """Turn pairs of query and document into rows of one prompt that are at most `max_tokens` long.

    Truncation takes tokens of the document only, from its end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, plain: Tokenizer, prompt: Prompt, max_tokens: int) -> None:
        self._plain = plain
        self._max_tokens = max_tokens
        self._stretches = [_Stretch(ids=tuple(start_ids(tokenizer)))]
        for parts in _between_special_tokens(prompt, special_tokens(tokenizer)):
            fixed = not set(parts) & set(_FIELDS)
            ids = tuple(literal_ids(tokenizer, "".join(parts))) if fixed else ()
            self._stretches.append(_Stretch(() if fixed else parts, ids))

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """Return one row a pair of query and document; its `text` is the query.

        Raises `InputError` if a query leaves its document no room.
        """
        encoded = [
            self._plain.encode_batch([_filled(stretch.parts, *pair) for pair in pairs]) if stretch.parts else None
            for stretch in self._stretches
        ]
        return [
            self._row(i, pair, [None if encodings is None else encodings[i] for encodings in encoded])
            for i, pair in enumerate(pairs)
        ]

    def _row(self, number: int, pair: tuple[str, str], encodings: Sequence[Encoding | None]) -> Row:
        excess = -self._max_tokens
        excess += sum(len(s.ids if e is None else e.ids) for s, e in zip(self._stretches, encodings, strict=True))
        ids: list[int] = []
        query, cut = (0, 0), 0
        for stretch, encoding in zip(self._stretches, encodings, strict=True):
            if encoding is None:
                ids += stretch.ids
                continue
            begin, dropped = len(ids), 0
            ids += encoding.ids
            for name, start, stop in _fields(stretch.parts, pair, encoding.offsets):
                if name == QUERY:
                    query = (begin + start - dropped, begin + stop - dropped)
                    continue
                keep = tokens_kept(encoding.offsets[start:stop], excess)
                cut = dropped = stop - start - keep
                del ids[begin + start + keep : begin + stop]
        if len(ids) > self._max_tokens:
            raise InputError(
                f"pairs[{number}]: prompt and query have {len(ids)} tokens, max_tokens is {self._max_tokens}; "
                f"shorten the query or raise max_tokens"
            )
        return Row(ids, 0, None, query, cut)


def common_prefix(rows: Sequence[Row], stop: int) -> int:
    """Return how many ids all rows begin with, at most `stop`."""
    shortest, longest = min(row.ids for row in rows), max(row.ids for row in rows)
    same = 0
    while same < min(stop, len(shortest)) and shortest[same] == longest[same]:
        same += 1
    return same


def _between_special_tokens(prompt: Prompt, marks: Sequence[str]) -> list[tuple[str, ...]]:
    """Split a prompt's parts where its own words have special tokens, which make stretches of their own."""
    special = re.compile("|".join(re.escape(mark) for mark in marks if mark) or "(?!)")
    stretches: list[tuple[str, ...]] = []
    current: list[str] = []
    for part in prompt.parts:
        matches = [] if part in _FIELDS else list(special.finditer(part))
        if matches:
            first, last = matches[0].start(), matches[-1].end()
            stretches += [(*current, part[:first]), (part[first:last],)]
            part = part[last:]
            current = []
        current.append(part)
    return [*stretches, tuple(current)]


def _filled(parts: Sequence[str], query: str, document: str) -> str:
    return "".join({QUERY: query, DOCUMENT: document}.get(part, part) for part in parts)


def _fields(parts: Sequence[str], pair: tuple[str, str], offsets: Sequence[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Return each field of a stretch and the range of its tokens, in order."""
    fields = []
    at, before = 0, ""
    for part in parts:
        if part in _FIELDS:
            text = pair[_FIELDS.index(part)]
            blank = len(before) - len(before.rstrip())
            fields.append((part, *tokens_between(offsets, at, at + len(text), blank)))
            at, before = at + len(text), ""
        else:
            at, before = at + len(part), part
    return fields
