"""Scores read from a language model's logits over a prompt with query and document."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from tp_retrieval.embedding.forward.batching import Batching
from tp_retrieval.embedding.forward.forward import Prefix, caches_prefix, hidden_states, read_prefix
from tp_retrieval.embedding.forward.tokens import Row, collate
from tp_retrieval.embedding.model.backbone import LanguageModel
from tp_retrieval.errors import TruncationWarning
from tp_retrieval.reranking.methods import PromptMethod, first_tokens
from tp_retrieval.reranking.prompt import DOCUMENT, Prompt, PromptTokenizer, common_prefix
from tp_retrieval.types import Float32Array

CONTENT_FREE = "N/A"
"""The query whose score `calibrate` subtracts (Zhao et al., ICML 2021)."""

_SHARED_FROM = 2  # rows per distinct first text from which it pays to run that text once
_LOGITS = 2**25  # logits in memory at once

Pair = tuple[str, str]


class PromptScorer:
    """A scorer of query and document pairs by a method on a language model; one forward pass serves many pairs.

    Logits are computed for the positions that the method reads and for no other. `calibrate` subtracts each document's
    score under a query without content. Documents are cut where a row would be longer than `max_tokens`.
    """

    def __init__(self, model: LanguageModel, method: PromptMethod, *, calibrate: bool, max_tokens: int) -> None:
        backbone = model.backbone
        self._model = model
        self._method = method
        self._calibrate = calibrate
        self._max_tokens = min(max_tokens, backbone.max_positions or max_tokens)
        prompt = Prompt(method.prompt)
        if method.chat:
            prompt = prompt.as_chat(backbone.tokenizer)
        plain = backbone.plain_tokenizer
        self._prompt = prompt
        self._answers = first_tokens(plain, prompt, method.answers)
        self._tokenizer = PromptTokenizer(backbone.tokenizer, plain, prompt, self._max_tokens)
        self._batching = Batching(backbone.device)
        self._prefix: tuple[tuple[int, ...], Prefix] = ((), Prefix(0))

    def score_pairs(self, pairs: Sequence[Pair], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair of query and document, `(n,) float32`."""
        free = [(CONTENT_FREE, document) for _, document in pairs] if self._calibrate else []
        unique = list(dict.fromkeys([*pairs, *free]))  # equal pairs are scored once
        rows = self._tokenizer.rows(unique)
        self._warn_of_truncation(unique, rows)
        scores = np.zeros(len(unique), dtype=np.float32)
        with tqdm(total=len(unique), unit="pair", disable=not show_progress) as bar:
            for numbers in self._groups(unique):
                scores[numbers] = self._score([rows[i] for i in numbers], bar)
        by_pair = dict(zip(unique, scores, strict=True))
        values = np.array([by_pair[pair] for pair in pairs], dtype=np.float32)
        return values - np.array([by_pair[pair] for pair in free], dtype=np.float32) if free else values

    def _groups(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Group pairs by the text that comes first in the prompt where many share it; it is run once a group."""
        first = 1 if self._prompt.first == DOCUMENT else 0
        groups: dict[str, list[int]] = {}
        for i, pair in enumerate(pairs):
            groups.setdefault(pair[first], []).append(i)
        shared = len(pairs) >= _SHARED_FROM * len(groups)
        return list(groups.values()) if shared else [list(range(len(pairs)))]

    def _score(self, rows: Sequence[Row], bar: tqdm[Any]) -> Float32Array:
        """Return the scores of rows, whose common first tokens are run once."""
        read = [self._method.positions(row) for row in rows]
        stop = min((positions.start for positions in read if positions), default=0)
        prefix = common_prefix(rows, stop) if caches_prefix(self._model.backbone) else 0
        rows = [replace(row, prefix=prefix) for row in rows]
        scores = np.zeros(len(rows), dtype=np.float32)
        wanted = [i for i, positions in enumerate(read) if positions]
        for group, values in self._batching.run([rows[i] for i in wanted], self._forward):
            scores[[wanted[i] for i in group]] = values
            bar.update(len(group))
        return scores

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row]) -> Float32Array:
        backbone = self._model.backbone
        batch = collate(rows).to(backbone.device)
        with backbone.lock:
            states = hidden_states(backbone, batch, self._read_prefix(batch.prefix), {None}, None)[None]  # (B, T, H)
        read = [[at - rows[0].prefix for at in self._method.positions(row)] for row in rows]
        scores = []
        for numbers in self._chunks([len(positions) for positions in read]):
            picked = torch.cat([states[i, read[i]] for i in numbers])  # (positions of these rows, H)
            logits = torch.split(self._model.logits(picked), [len(read[i]) for i in numbers])
            scores += [self._method.score(part, rows[i], self._answers) for i, part in zip(numbers, logits, strict=True)]
        values: Float32Array = torch.stack(scores).float().cpu().numpy()
        return values

    def _read_prefix(self, ids: tuple[int, ...]) -> Prefix:
        """Return the prefix's keys and values; the last one is kept, which is the prompt's own for a query at a time."""
        if self._prefix[0] != ids:
            self._prefix = (ids, read_prefix(self._model.backbone, ids, self._model.backbone.n_blocks))
        return self._prefix[1]

    def _chunks(self, counts: Sequence[int]) -> list[list[int]]:
        """Group row numbers so that the logits of a group fit in memory."""
        most = _LOGITS // self._model.vocabulary
        chunks: list[list[int]] = []
        filled = most
        for i, count in enumerate(counts):
            if filled + count > most:
                chunks.append([])
                filled = 0
            chunks[-1].append(i)
            filled += count
        return chunks

    def _warn_of_truncation(self, pairs: Sequence[Pair], rows: Sequence[Row]) -> None:
        cut = {document: row.cut for (_, document), row in zip(pairs, rows, strict=True) if row.cut}
        if cut:
            warnings.warn(
                f"{len(cut)} documents were cut so that prompt, query and document fit max_tokens={self._max_tokens}; "
                f"the longest lost its last {max(cut.values())} tokens",
                TruncationWarning,
                stacklevel=5,
            )
