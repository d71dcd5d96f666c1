"""Token rows of a text in its template, and padded batches of rows.

The string before the slot and the string after it are tokenised separately, as the method's authors do; text and
template after the slot are tokenised together, because BPE merges across the quotes. Where the text lies is known from
character offsets, never from searching for a token.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from tokenizers import Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing

from tp_retrieval.embedding.recipe import PrependKind
from tp_retrieval.embedding.template import Template
from tp_retrieval.errors import InputError, RecipeError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MIN_TEXT_TOKENS = 4
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*")


@dataclass(frozen=True)
class Row:
    """One text in its template: all ids, the slot's position (or None), the range of text ids, the number cut off.

    The first `prefix` ids are the same for every text of the template; the slot's id is a placeholder. `copies` are the
    slots of `htp`, each with the place of the token that it copies; empty elsewhere. `stretches` are the ranges of ids
    whose mean is read beside the text's own. From `bidirectional` on, ids may see each other; None is no such place.
    """

    ids: list[int]
    prefix: int
    slot: int | None
    text: tuple[int, int]
    cut: int
    copies: tuple[tuple[int, int], ...] = ()
    stretches: tuple[tuple[int, int], ...] = ()
    bidirectional: int | None = None

    def with_stretches(self, parts: Sequence[tuple[int, int]]) -> Row:
        """Return the row with stretches, given as ranges of the text's own tokens."""
        begin = self.text[0]
        return replace(self, stretches=tuple((begin + start, begin + stop) for start, stop in parts))


@dataclass(frozen=True)
class TokenBatch:
    """Rows padded on the right, without their common prefix; positions count from the prefix's end.

    A row's slots, each with the token it copies, are repeated until all rows have as many. Tokens from `bidirectional` on
    may see each other, the same place in every row.
    """

    prefix: tuple[int, ...]
    ids: torch.Tensor  # (B, T) int64
    slots: torch.Tensor | None  # (B, S, 2) int64, slot and source
    last: torch.Tensor  # (B,) int64
    text: torch.Tensor  # (B, 2) int64, start and stop
    stretches: torch.Tensor | None = None  # (S, 3) int64, row, start and stop
    bidirectional: int | None = None

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on a device."""
        slots = None if self.slots is None else self.slots.to(device)
        stretches = None if self.stretches is None else self.stretches.to(device)
        ids, last, text = (tensor.to(device) for tensor in (self.ids, self.last, self.text))
        return TokenBatch(self.prefix, ids, slots, last, text, stretches, self.bidirectional)


class TemplateTokenizer:
    """A tokenizer of texts into rows of one template, at most `max_tokens` long.

    Truncation takes text tokens only, from the end. With `echo` a copy of the text's tokens takes the slot's place; with
    `htp` as many slots as there are sentences do, and another slot precedes every sentence; with `bidirectional` nothing
    does. With `has_prefix` False rows have no common prefix.
    Raises `RecipeError` if the template leaves the text no room.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        plain: Tokenizer,
        template: Template,
        max_tokens: int,
        kind: PrependKind | None = None,
        has_prefix: bool = True,
    ) -> None:
        self._kind = kind if template.has_slot else None
        self._plain = plain
        self._max_tokens = max_tokens
        self._placeholder = tokenizer.bos_token_id or tokenizer.eos_token_id or 0

        marks = special_tokens(tokenizer)
        lead, self._before = _split_after_last(template.before, marks)
        self._after, tail = _split_before_first(template.after, marks)
        self._tail = literal_ids(tokenizer, tail)
        head = start_ids(tokenizer) + literal_ids(tokenizer, template.head)
        filled = template.has_slot and kind != "bidirectional"
        self._slot = len(head) if filled else None
        self._bidirectional = len(head) if template.has_slot and not filled else None
        self._lead = head + [self._placeholder] * filled + literal_ids(tokenizer, lead)
        prefix = head if template.has_slot else self._lead + self._stable_ids()
        self.prefix = tuple(prefix if has_prefix else [])
        room = max_tokens - len(self.rows([""])[0].ids)
        if room < _MIN_TEXT_TOKENS:
            needed = max_tokens - room + _MIN_TEXT_TOKENS
            raise RecipeError(f"max_tokens: {max_tokens} must be at least {needed} for the template {template.source!r}")

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Return one row a text."""
        joint = [f"{self._before}{text}{self._after}" for text in texts]
        encodings = self._plain.encode_batch(joint)
        return [self._row(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def _row(self, encoding: Encoding, given: str) -> Row:
        ids, offsets = encoding.ids, encoding.offsets
        begin = len(self._before)
        blank = begin - len(self._before.rstrip())
        start, stop = tokens_between(offsets, begin, begin + len(given), blank)
        inside = offsets[start:stop]
        excess = len(self._lead) + len(ids) + len(self._tail) - self._max_tokens
        if self._kind == "echo":  # the text occurs twice and the slot not at all; cutting one token shortens the row by two
            excess = len(inside) - (len(inside) + 1 - excess) // 2
        keep = tokens_kept(inside, excess)
        starts: list[int] = []
        if self._kind == "htp" and inside:
            keep, starts = self._kept_beside_slots(inside, given, excess)
        cut = len(inside) - keep
        before, text, after = ids[:start], ids[start : start + keep], ids[stop:] + self._tail
        if self._kind == "echo":
            return self._echoed(before, text, after, cut)
        if starts:
            return self._with_slots(before, text, after, cut, starts)
        row = self._lead + before + text + after
        if len(row) > self._max_tokens:
            raise InputError(f"a text leaves {len(row)} template tokens where max_tokens is {self._max_tokens}")
        first = len(self._lead) + start
        row = row or [self._placeholder]  # an empty text in an empty template still needs a position to read
        text_range = (first, first + keep)
        return Row(row, self._prefix_of(row), self._slot, text_range, cut, bidirectional=self._bidirectional)

    def _echoed(self, before: list[int], text: list[int], after: list[int], cut: int) -> Row:
        head, rest = self._lead[: self._slot], self._lead[(self._slot or 0) + 1 :]
        first = len(head) + len(text) + len(rest) + len(before)
        ids = head + text + rest + before + text + after or [self._placeholder]
        return Row(ids, self._prefix_of(ids), None, (first, first + len(text)), cut)

    def _with_slots(self, before: list[int], text: list[int], after: list[int], cut: int, starts: list[int]) -> Row:
        """Return a row with a slot for every sentence in front, and one before every sentence (arXiv 2511.14868)."""
        front = len(self._lead[: self._slot])
        head, rest = self._lead[:front], self._lead[front + 1 :]
        ids = head + [self._placeholder] * len(starts) + rest + before
        first, copies = len(ids), []
        for i, (begin, end) in enumerate(itertools.pairwise([*starts, len(text)])):
            slot = len(ids)
            ids = [*ids, self._placeholder, *text[begin:end]]
            copies += [(front + i, len(ids) - 1), (slot, len(ids) - 1)]
        stop = len(ids)
        ids += after
        return Row(ids, self._prefix_of(ids), front, (first, stop), cut, tuple(copies))

    def _kept_beside_slots(self, inside: Sequence[tuple[int, int]], text: str, excess: int) -> tuple[int, list[int]]:
        """Return the number of text tokens that remain, and the first tokens of sentences.

        `excess` is how many had to go if there were one slot; every sentence has two.
        """
        starts = sentence_starts(inside, text, len(self._before))
        keep = len(inside)
        while keep and excess - (len(inside) - keep) + 2 * sum(start < keep for start in starts) - 1 > 0:
            keep -= 1
        keep = tokens_kept(inside, len(inside) - keep)
        return keep, [start for start in starts if start < keep]

    def _prefix_of(self, ids: list[int]) -> int:
        return len(self.prefix) if self._begins_with_prefix(ids) else 0

    def _begins_with_prefix(self, ids: list[int]) -> bool:
        return len(ids) > len(self.prefix) and tuple(ids[: len(self.prefix)]) == self.prefix

    def _stable_ids(self) -> list[int]:
        """Return the first ids of almost any text's row; rows that BPE merged otherwise have no prefix."""
        probes = [self._plain.encode(self._before + probe).ids for probe in ("a", "1", "'", " ", "\n")]
        shared = zip(*probes, strict=False)
        return [ids[0] for ids in itertools.takewhile(lambda ids: len(set(ids)) == 1, shared)]


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a copy of a fast tokenizer that reads special tokens as text and adds none."""
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{type(tokenizer).__name__} has no character offsets; a fast tokenizer is needed")
    plain: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
    plain.encode_special_tokens = True
    plain.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    plain.no_truncation()
    plain.no_padding()
    return plain


def collate(rows: Sequence[Row]) -> TokenBatch:
    """Pad rows of one template and one prefix on the right, without the prefix."""
    skip = rows[0].prefix
    width = max(len(row.ids) for row in rows) - skip
    ids = torch.tensor([row.ids[skip:] + [0] * (width - len(row.ids) + skip) for row in rows])
    slots = None
    if rows[0].slot is not None:
        copies = [row.copies or ((row.slot or 0, len(row.ids) - 1),) for row in rows]
        most = max(map(len, copies))
        slots = torch.tensor([pairs + pairs[:1] * (most - len(pairs)) for pairs in copies]) - skip
    last = torch.tensor([len(row.ids) - 1 - skip for row in rows])
    text = torch.tensor([[row.text[0] - skip, row.text[1] - skip] for row in rows])
    ranges = [(i, start - skip, stop - skip) for i, row in enumerate(rows) for start, stop in row.stretches]
    stretches, begin = torch.tensor(ranges) if ranges else None, rows[0].bidirectional
    return TokenBatch(tuple(rows[0].ids[:skip]), ids, slots, last, text, stretches, None if begin is None else begin - skip)


def sentence_starts(offsets: Sequence[tuple[int, int]], text: str, begin: int) -> list[int]:
    """Return which of a text's tokens begin a sentence, the first always; the text begins at character `begin`.

    A sentence ends with `.`, `!`, `?` or their wide forms, followed by quotes, white space or the end.
    """
    ends = [begin + match.end() for match in _SENTENCE_END.finditer(text.rstrip())]
    starts = [0]
    for i, (first, _) in enumerate(offsets):
        passed = [end for end in ends if end <= first]
        if passed and i:
            starts.append(i)
        ends = ends[len(passed) :]
    return starts


def tokens_between(offsets: Sequence[tuple[int, int]], begin: int, end: int, blank: int) -> tuple[int, int]:
    """Return the range of tokens that lie in the characters begin..end.

    The first may have swallowed some of the `blank` characters of white space before them; any other token across a
    border is template.
    """
    inside = [i for i, (a, b) in enumerate(offsets) if begin - blank <= a < b <= end and b > begin]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def tokens_kept(offsets: Sequence[tuple[int, int]], excess: int) -> int:
    """Return the number of a text's tokens after removing `excess`; a character of several tokens is removed whole."""
    keep = len(offsets) - min(max(excess, 0), len(offsets))
    while 0 < keep < len(offsets) and offsets[keep][0] < offsets[keep - 1][1]:
        keep -= 1
    return keep


def literal_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a template's words, in which special tokens are special."""
    return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of a tokenizer's special tokens."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens))


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that the tokenizer puts before a text, such as a BOS token."""
    bare = list(tokenizer("a", add_special_tokens=False).input_ids)
    full = list(tokenizer("a").input_ids)
    for i in range(len(full) - len(bare) + 1):
        if full[i : i + len(bare)] == bare:
            return full[:i]
    return []


def _split_after_last(text: str, marks: Sequence[str]) -> tuple[str, str]:
    cut = max((text.rfind(mark) + len(mark) for mark in marks if mark and mark in text), default=0)
    return text[:cut], text[cut:]


def _split_before_first(text: str, marks: Sequence[str]) -> tuple[str, str]:
    cut = min((text.find(mark) for mark in marks if mark and mark in text), default=len(text))
    return text[:cut], text[cut:]
