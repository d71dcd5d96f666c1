"""What the open questions share: cosines of pairs at every exit, and paired intervals of many signals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.forward.batching import Batching
from tp_retrieval.embedding.forward.forward import Prefix, caches_prefix, hidden_states, read_prefix
from tp_retrieval.embedding.forward.tokens import Row, TemplateTokenizer, collate
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend, PrependKind, View
from tp_retrieval.embedding.template import Template, clean
from tp_retrieval.evaluation.datasets import read_sts
from tp_retrieval.evaluation.metrics import Estimate
from tp_retrieval.evaluation.objectives.sts import StsObjective
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate, prompts

Figures = dict[str, Any]
Floats = NDArray[np.float64]

SETS = ("STSB-dev", "STS12", "SICKR-trial")
MAPS = ("none", "center")
SCOPES = ((0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (1, 5), (1, 7), (2, 3), (2, 5), (3, 5), (3, 7), (5, 9))
RESAMPLES = 1000
_SEED = 20251


@dataclass(frozen=True)
class Prompt:
    """Templates whose vectors are averaged, and their slots filled or their mask widened in a scope of blocks."""

    name: str
    templates: tuple[str, ...]

    def arm(self, kind: PrependKind, start: int, stop: int) -> tuple[list[str], Prepend]:
        """Return the templates with a slot, and what is done with it."""
        candidates = [PromptCandidate(self.name, text, text) for text in self.templates]
        if kind == "bidirectional":
            return [one.bidirectional(start, stop).document for one in candidates], Prepend(kind, start, stop)
        return [one.rewired("both", start, stop).document for one in candidates], Prepend(kind, start, stop)


def known_prompts() -> dict[str, Prompt]:
    """Return PromptEOL, Pretended CoT, Knowledge, one demonstration, and MetaEOL's eight."""
    by_name = {one.name: Prompt(one.name, (one.document,)) for one in prompts("sts")}
    meta = tuple(template.source.replace("<PST> ", "") for template in Recipe.load("metaeol-tp").document)
    return {name: by_name[name] for name in ("prompteol", "cot", "ke", "icl")} | {"metaeol": Prompt("metaeol", meta)}


class PairStates:
    """The last token's states of sentence pairs at every exit `1..L`, a model's, on its device.

    Rows are tokenised once for each template, however many scopes are tried.
    """

    def __init__(self, backbone: Backbone, objectives: Sequence[StsObjective]) -> None:
        self.backbone = backbone
        self.objectives = objectives
        self._rows: dict[tuple[str, PrependKind | None], list[Row]] = {}
        self._prefixes: dict[tuple[int, ...], Prefix] = {}
        self._texts = [clean(text) for one in objectives for text in one.documents]
        self.passes = 0  # rows that ran

    def cosines(self, templates: Sequence[str], prepend: Prepend | None) -> dict[str, list[Floats]]:
        """Return for each map the cosines `(exits, pairs)` of every set; centring is fitted on the set's sentences."""
        total = sum((self._states(template, prepend) for template in templates), torch.zeros(()))
        by_map: dict[str, list[Floats]] = {name: [] for name in MAPS}
        begin = 0
        for one in self.objectives:
            states = total[begin : begin + len(one.documents)]  # (texts, exits, H)
            begin += len(one.documents)
            row = {text: i for i, text in enumerate(one.documents)}
            first, second = (
                torch.tensor([row[text] for text in side], device=states.device)
                for side in (one.dataset.first, one.dataset.second)
            )
            for name in MAPS:
                mapped = states - states.mean(dim=0) if name == "center" else states
                units = functional.normalize(mapped, dim=-1)
                products = torch.stack([(units[first, i] * units[second, i]).sum(dim=-1) for i in range(units.shape[1])])
                by_map[name].append(products.double().cpu().numpy())
        return by_map

    @torch.inference_mode()
    def _states(self, template: str, prepend: Prepend | None) -> torch.Tensor:
        """Return the states `(texts, exits, H) float32` of all sets' texts, one set after the other."""
        backbone, kind = self.backbone, None if prepend is None else prepend.kind
        if (template, kind) not in self._rows:
            tokenizer = TemplateTokenizer(
                backbone.tokenizer,
                backbone.plain_tokenizer,
                Template(template),
                backbone.max_positions or 512,
                kind,
                caches_prefix(backbone),
            )
            self._rows[template, kind] = tokenizer.rows(self._texts)
        rows = self._rows[template, kind]
        states = torch.empty((len(rows), backbone.n_blocks, backbone.width), device=backbone.device)
        for group, vectors in Batching(backbone.device).run(rows, partial(self._forward, prepend=prepend)):
            states[group] = vectors
        self.passes += len(rows)
        return states

    def _forward(self, rows: Sequence[Row], prepend: Prepend | None) -> torch.Tensor:
        batch = collate(rows).to(self.backbone.device)
        if batch.prefix not in self._prefixes:
            self._prefixes[batch.prefix] = read_prefix(self.backbone, batch.prefix, self.backbone.n_blocks)
        exits = range(1, self.backbone.n_blocks + 1)
        found = hidden_states(self.backbone, batch, self._prefixes[batch.prefix], exits, prepend)
        each = torch.arange(len(rows), device=batch.last.device)
        return torch.stack([found[exit_][each, batch.last].float() for exit_ in exits], dim=1)


class Resamples:
    """Samples of every set's rows, drawn with replacement, the same ones for every signal: differences are paired.

    A statistic is an array of 1 + 1,000 numbers, of all rows and of each sample, in percent, the mean over the sets.
    """

    def __init__(self, golds: Sequence[Floats]) -> None:
        chance = np.random.default_rng(_SEED)
        drawn = [[chance.integers(0, len(gold), len(gold)) for gold in golds] for _ in range(RESAMPLES)]
        self._rows = [
            np.concatenate([np.arange(len(gold))[None], [sample[i] for sample in drawn]]) for i, gold in enumerate(golds)
        ]
        self._golds = [_standard_ranks(gold[rows]) for gold, rows in zip(golds, self._rows, strict=True)]

    def spearman(self, signals: Sequence[Floats]) -> Floats:
        """Return Spearman's correlation of a signal a set with the set's gold scores."""
        pieces = [
            (_standard_ranks(signal[rows]) * gold).sum(axis=1)
            for signal, rows, gold in zip(signals, self._rows, self._golds, strict=True)
        ]
        return np.asarray(100 * np.mean(pieces, axis=0))


def estimate(statistic: Floats) -> dict[str, float]:
    """Return a statistic's value and its 95% interval, as JSON."""
    low, high = np.nanpercentile(statistic[1:], [2.5, 97.5])
    return {"value": round(float(statistic[0]), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def as_json(found: Estimate) -> dict[str, float]:
    """Return an estimate of the package's own bootstrap as JSON."""
    return {"value": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


def spearman_of_rows(signals: Floats, gold: Floats) -> Floats:
    """Return Spearman's correlation `(exits,)` of every row of signals `(exits, n)` with the gold scores, times 100."""
    return np.asarray(100 * (_standard_ranks(signals) * _standard_ranks(gold[None])).sum(axis=1))


def _standard_ranks(values: Floats) -> Floats:
    """Return mean ranks along the last axis, centred and of unit length; zeros where all are equal."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    return np.asarray(ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12))


def gold(objective: StsObjective) -> Floats:
    """Return a set's scores."""
    return np.array(objective.dataset.scores, dtype=np.float64)


def add_items(parser: argparse.ArgumentParser) -> None:
    """Add the option that draws some of the pairs."""
    parser.add_argument("--items", type=int, help="pairs of each set; all without it")


def sts_set(data: Path, name: str, items: int | None) -> StsObjective:
    """Read a set of pairs, or some of its pairs."""
    dataset = read_sts(data / "sts" / f"{name}.tsv")
    if items is not None and items < len(dataset.scores):
        dataset = StsObjective(dataset, folded=False).sample(items).dataset
    return StsObjective(dataset)


def load_whole(options: argparse.Namespace, *, head: bool = False) -> Embedder:
    """Load every block of the model that the options name, and its head where it is asked for."""
    recipe = Recipe("{text}", "{text}", [View(None)])
    return Embedder.from_pretrained(options.model, recipe=recipe, device=options.device, dtype=options.dtype, whole=head)


def named(embedder: Embedder, figures: Figures) -> Figures:
    """Return a model's figures with its name."""
    return {"model": Path(embedder.provenance.model).name} | figures
