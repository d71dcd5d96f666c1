"""What prepending does to attention, block by block, and whether that goes with the gain of a pair.

Random pairs of STS-B dev through PromptEOL: as it is, with a slot that stays empty, and with the slot rewritten in a scope
of blocks. Means over heads, tokens and texts, in percent of a token's attention: what the early half of a text, its late
half and the row's last token give to the slot; what the text gives to the row's first token; and the entropy of the text's
rows, as a share of the largest possible. How far early tokens see late content is measured directly as well: the late half
of every text is replaced by tokens of other texts, and the early half's states change by so much of their length; without
prepending they cannot. A bidirectional mask in the same blocks stands beside it.

The gain of a pair is by how much nearer its cosine's rank came to its score's at the last exit, see `complexity`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.open_questions.common import (
    MAPS,
    Figures,
    Floats,
    PairStates,
    Prompt,
    Resamples,
    add_items,
    as_json,
    estimate,
    gold,
    known_prompts,
    load_whole,
    named,
    sts_set,
)
from benchmarks.open_questions.complexity import pair_gains
from tp_retrieval import Embedder
from tp_retrieval.embedding.forward.batching import Batching
from tp_retrieval.embedding.forward.forward import Prefix, hidden_states
from tp_retrieval.embedding.forward.tokens import Row, TemplateTokenizer, TokenBatch, collate
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend
from tp_retrieval.embedding.template import Template, clean
from tp_retrieval.evaluation.metrics import bootstrap, mean_of
from tp_retrieval.evaluation.objectives.objective import drawn
from tp_retrieval.evaluation.objectives.sts import StsObjective

MEASURES = ("early to slot", "late to slot", "last to slot", "text to first", "entropy")
PAIRS = 500
_SEED = 3


@dataclass(frozen=True)
class _Arm:
    """Rows of all texts, and what is done with their slots."""

    rows: list[Row]
    prepend: Prepend | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)
    parser.add_argument("--scope", nargs="+", default=["1..2", "1..5"], help="start..stop, several")


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model."""
    scopes = [(int(start), int(stop)) for start, _, stop in (scope.partition("..") for scope in options.scope)]
    whole = sts_set(options.data, "STSB-dev", None)
    rows = drawn(np.arange(whole.count), options.items or PAIRS)
    data = whole.dataset
    columns = ([column[i] for i in rows] for column in (data.first, data.second, data.scores, data.subsets))
    objective = StsObjective(type(data)(data.name, *columns))  # type: ignore[arg-type]
    embedder = load_whole(options)
    return named(embedder, by_block(embedder, objective, scopes))


def by_block(embedder: Embedder, objective: StsObjective, scopes: Sequence[tuple[int, int]]) -> Figures:
    """Return the measures of every block and arm, and their correlations with the gain of a pair."""
    backbone, prompt = embedder.backbone, known_prompts()["prompteol"]
    texts = [clean(text) for text in objective.documents]
    plain = _Arm(_rows(backbone, prompt.templates[0], texts, None), None)
    empty = _Arm(_rows(backbone, prompt.arm("tp", *scopes[0])[0][0], texts, Prepend("tp", *scopes[0])), None)
    weights = {"plain": _attention(backbone, plain), "empty slot": _attention(backbone, empty)}
    figures: Figures = {"pairs": objective.count, "texts": len(texts), "blocks": [], "correlations": [], "gain": []}
    states = PairStates(backbone, [objective])
    off = states.cosines(prompt.templates, None)
    for scope in (one for one in scopes if one[1] <= backbone.n_blocks):
        tp, mask = (_arm(backbone, prompt, Prepend(kind, *scope), texts) for kind in ("tp", "bidirectional"))
        name = f"tp {scope[0]}..{scope[1]}"
        weights[name] = _attention(backbone, tp)
        seen = {name: _influence(backbone, tp), "mask": _influence(backbone, mask), "plain": _influence(backbone, plain)}
        figures["blocks"] += _by_block(name, weights, seen)
        on = states.cosines(*prompt.arm("tp", *scope))
        of_texts = _properties(weights[name] - weights["plain"], weights[name], seen[name], scope)
        figures["gain"] += _gains(name, objective, on, off)
        figures["correlations"] += _correlations(name, objective, on, off, of_texts)
    return figures


def _arm(backbone: Backbone, prompt: Prompt, prepend: Prepend, texts: Sequence[str]) -> _Arm:
    (template,), _ = prompt.arm(prepend.kind, prepend.start, prepend.stop)
    return _Arm(_rows(backbone, template, texts, prepend), prepend)


def _rows(backbone: Backbone, template: str, texts: Sequence[str], prepend: Prepend | None) -> list[Row]:
    """Return whole rows, without a cached prefix."""
    kind = None if prepend is None else prepend.kind
    tokenizer = TemplateTokenizer(backbone.tokenizer, backbone.plain_tokenizer, Template(template), 512, kind)
    return [replace(row, prefix=0) for row in tokenizer.rows(texts)]


@torch.inference_mode()
def _attention(backbone: Backbone, arm: _Arm) -> Floats:
    """Return the measures `(texts, blocks, measures)`, each from 0 to 1; nothing goes to a slot where there is none."""
    found = np.zeros((len(arm.rows), backbone.n_blocks, len(MEASURES)))
    for group, measured in Batching(backbone.device).run(arm.rows, partial(_measured, backbone, arm.prepend)):
        found[group] = measured.cpu().numpy()
    return found


def _measured(backbone: Backbone, prepend: Prepend | None, rows: Sequence[Row]) -> torch.Tensor:
    batch = collate(rows).to(backbone.device)
    with _each_block(backbone, batch) as kept:
        hidden_states(backbone, batch, Prefix(0), {backbone.n_blocks}, prepend)
    return torch.stack(kept, dim=1)


@contextmanager
def _each_block(backbone: Backbone, batch: TokenBatch) -> Iterator[list[torch.Tensor]]:
    """Collect every block's measures `(B, measures)` of the pass inside, which runs attention step by step."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: Any) -> None:
        kept.append(_of_weights(output[1].float(), batch))

    names = ("self_attn", "attention", "attn")
    modules = [next(getattr(block, name) for name in names if hasattr(block, name)) for block in backbone.blocks]
    handles = [module.register_forward_hook(keep) for module in modules]
    before = backbone.attention
    try:
        backbone.decoder.set_attn_implementation("eager")
        yield kept
    finally:
        backbone.decoder.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


def _of_weights(weights: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """Return the measures of attention weights `(B, heads, T, T)`."""
    rows = torch.arange(len(weights), device=weights.device)
    heads = weights.mean(dim=1)  # (B, T, T)
    early, late = _halves(batch)
    text = early | late
    slots = batch.slots
    to_slot = heads.new_zeros(heads.shape[:2]) if slots is None else heads[rows, :, slots[:, 0, 0]]
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(dim=-1).mean(dim=1)  # (B, heads, T, T) -> (B, T)
    largest = torch.arange(1, weights.shape[-1] + 1, device=weights.device).float().log().clamp(min=1e-6)
    measures = (
        _mean(to_slot, early),
        _mean(to_slot, late),
        to_slot[rows, batch.last],
        _mean(heads[:, :, 0], text),
        _mean(entropy / largest, text),
    )
    return torch.stack(measures, dim=1)


def _halves(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which tokens are of the early and of the late half of the row's text, `(B, T)` each."""
    position = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    start, stop = batch.text[:, :1], batch.text[:, 1:]
    middle = (start + stop) // 2
    return (position >= start) & (position < middle), (position >= middle) & (position < stop)


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


@torch.inference_mode()
def _influence(backbone: Backbone, arm: _Arm) -> Floats:
    """Return by what share of their length early states change with the late half of the text, `(texts, blocks)`."""
    others = _replaced(arm.rows)
    exits = range(1, backbone.n_blocks + 1)
    found = np.zeros((len(arm.rows), backbone.n_blocks))
    numbered = [replace(row, cut=i) for i, row in enumerate(arm.rows)]  # so that a batch finds its counterparts

    def changes(rows: Sequence[Row]) -> torch.Tensor:
        batch = collate(rows).to(backbone.device)
        other = collate([others[row.cut] for row in rows]).to(backbone.device)
        states, changed = (hidden_states(backbone, one, Prefix(0), exits, arm.prepend) for one in (batch, other))
        early, _ = _halves(batch)
        shares = [
            _mean((states[i] - changed[i]).float().norm(dim=-1) / states[i].float().norm(dim=-1).clamp(min=1e-6), early)
            for i in exits
        ]
        return torch.stack(shares, dim=1)

    for group, shares in Batching(backbone.device).run(numbered, changes):
        found[group] = shares.cpu().numpy()
    return found


def _replaced(rows: Sequence[Row]) -> list[Row]:
    """Return rows whose late half of the text are tokens drawn from all texts; the same ones for every template."""
    pool = [id_ for row in rows for id_ in row.ids[slice(*row.text)]]
    chance = np.random.default_rng(_SEED)
    replaced = []
    for row in rows:
        start, stop = row.text
        middle = (start + stop) // 2
        tokens = [pool[i] for i in chance.integers(0, len(pool), stop - middle)]
        replaced.append(replace(row, ids=row.ids[:middle] + tokens + row.ids[stop:]))
    return replaced


def _by_block(name: str, weights: dict[str, Floats], seen: dict[str, Floats]) -> list[Figures]:
    """Return for every block the means in percent, and the changes of entropy and of attention to the first token."""
    lines = []
    for block in range(weights["plain"].shape[1]):
        line: Figures = {"arm": name, "block": block}
        for arm in ("plain", "empty slot", name):
            means = 100 * weights[arm][:, block].mean(axis=0)
            line["on" if arm == name else arm] = dict(zip(MEASURES, np.round(means, 3).tolist(), strict=True))
        for measure_ in ("text to first", "entropy"):
            i = MEASURES.index(measure_)
            change = weights[name][:, block, i] - weights["plain"][:, block, i]
            line[f"change of {measure_}"] = _mean_of(change)
        line["early sees late"] = _mean_of(seen[name][:, block])
        line["early sees late, mask"] = _mean_of(seen["mask"][:, block])
        line["early sees late, plain"] = round(100 * float(seen["plain"][:, block].max()), 6)
        lines.append(line)
    return lines


def _mean_of(values: Floats) -> dict[str, float]:
    return as_json(bootstrap(mean_of(values), len(values)))


def _properties(change: Floats, on: Floats, seen: Floats, scope: tuple[int, int]) -> dict[str, Floats]:
    """Return numbers of every text that may go with the gain, means over blocks from the scope's first on."""
    inside = slice(scope[0], None)
    found = {f"{name}, all blocks": on[:, inside, i].mean(axis=1) for i, name in enumerate(MEASURES[:3])}
    found |= {f"{name}, scope": on[:, slice(*scope), i].mean(axis=1) for i, name in enumerate(MEASURES[:3])}
    found |= {f"change of {name}": change[:, inside, i].mean(axis=1) for i, name in enumerate(MEASURES) if i > 2}
    return found | {"early sees late": seen[:, inside].mean(axis=1)}


def _gains(name: str, objective: StsObjective, on: dict[str, list[Floats]], off: dict[str, list[Floats]]) -> list[Figures]:
    """Return the gain of all pairs at the last exit, for each map."""
    samples, lines = Resamples([gold(objective)]), []
    for map_ in MAPS:
        with_it, without = (samples.spearman([arm[map_][0][-1]]) for arm in (on, off))
        lines.append({"arm": name, "map": map_, "off": estimate(without), "gain": estimate(with_it - without)})
    return lines


def _correlations(
    name: str,
    objective: StsObjective,
    on: dict[str, list[Floats]],
    off: dict[str, list[Floats]],
    of_texts: dict[str, Floats],
) -> list[Figures]:
    row = {text: i for i, text in enumerate(objective.documents)}
    first, second = ([row[text] for text in side] for side in (objective.dataset.first, objective.dataset.second))
    lines = []
    for map_ in MAPS:
        gains = pair_gains(on[map_][0][-1], off[map_][0][-1], gold(objective))
        for property_, values in of_texts.items():
            of_pairs = (values[first] + values[second]) / 2
            correlation = estimate(Resamples([of_pairs]).spearman([gains]))
            lines.append({"arm": name, "map": map_, "property": property_, "correlation": correlation})
    return lines
