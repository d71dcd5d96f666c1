"""Whether prepending's worth depends on a text: pairs grouped by length, parse depth, clauses, rarity of words, and genre.

`DATA/properties.json` is what `properties.py` wrote. Scope and exit are chosen on a third of the pairs, as in `scopes`.
Groups are thirds of the other pairs of each set, and a group's gain is the mean over the sets of the gain in Spearman's
correlation ×100 among the group's pairs. A pair's own gain is by how much nearer its cosine's rank came to its score's
rank, as a share of all ranks; `correlations` is its rank correlation ×100 with each property, mean over the sets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks.open_questions import scopes
from benchmarks.open_questions.common import (
    MAPS,
    SCOPES,
    SETS,
    Figures,
    Floats,
    PairStates,
    Resamples,
    add_items,
    estimate,
    gold,
    known_prompts,
    load_whole,
    named,
    sts_set,
)
from tp_retrieval import Embedder
from tp_retrieval.evaluation.metrics import Rows
from tp_retrieval.evaluation.objectives.sts import StsObjective

Properties = Mapping[str, Mapping[str, Sequence[float]]]
"""Of each set and property a number a pair, in the order of the set's table."""

_GROUPS = ("low", "middle", "high")
_WHERE = ("last", "best")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model."""
    text = (options.data / "properties.json").read_text(encoding="utf-8")
    properties: dict[str, dict[str, list[float]]] = json.loads(text)
    sets = [sts_set(options.data, name, None) for name in SETS]
    if options.items is not None:
        sets, properties = _first(sets, properties, options.items)
    embedder = load_whole(options)
    return named(embedder, by_property(embedder, sets, properties))


def by_property(embedder: Embedder, sets: Sequence[StsObjective], properties: Properties) -> Figures:
    """Return the gains of groups and genres, and the correlations of properties with the gain of a pair."""
    states = PairStates(embedder.backbone, sets)
    names = list(next(iter(properties.values())))
    values = {name: [np.array(properties[one.dataset.name][name])[one.chosen_by] for one in sets] for name in names}
    signals = scopes.all_signals(states, known_prompts()["prompteol"], SCOPES, ("tp",))
    figures: Figures = {"rows that ran": states.passes, "sets": {one.dataset.name: len(one.chosen_by) for one in sets}}
    figures["groups"], figures["genres"], figures["correlations"], figures["chosen"] = [], [], [], {}
    for map_ in MAPS:
        chosen = scopes.choose(signals[map_], sets, ("tp",))
        for where in _WHERE:
            (on_arm, exit_), (off_arm, off_exit) = chosen["tp", where], chosen["off", where]
            figures["chosen"][f"{map_}, {where}"] = {"scope": on_arm[1:], "exit": exit_, "exit without": off_exit}
            on, off = (
                [signal[at - 1, one.chosen_by] for signal, one in zip(signals[map_][arm], sets, strict=True)]
                for arm, at in ((on_arm, exit_), (off_arm, off_exit))
            )
            golds = [gold(one)[one.chosen_by] for one in sets]
            key = {"map": map_, "at": where}
            figures["groups"] += [key | line for line in _groups(values, golds, on, off)]
            figures["genres"] += [key | line for line in _genres(sets, golds, on, off)]
            gains = [pair_gains(*columns) for columns in zip(on, off, golds, strict=True)]
            for name, of_sets in values.items():
                correlation = estimate(Resamples(of_sets).spearman(gains))
                figures["correlations"].append(key | {"property": name, "correlation": correlation})
    return figures


def pair_gains(on: Floats, off: Floats, scores: Floats) -> Floats:
    """Return by how much nearer each cosine's rank came to its score's rank, as a share of all ranks."""
    target = stats.rankdata(scores)
    before, after = (np.abs(stats.rankdata(cosines) - target) for cosines in (off, on))
    return np.asarray((before - after) / len(scores))


def _groups(
    values: Mapping[str, Sequence[Floats]], golds: Sequence[Floats], on: Sequence[Floats], off: Sequence[Floats]
) -> list[Figures]:
    lines = []
    for name, of_sets in values.items():
        thirds = [np.array_split(np.argsort(column, kind="stable"), 3) for column in of_sets]
        for i, group in enumerate(_GROUPS):
            rows = [np.sort(of_set[i]) for of_set in thirds]
            edges = [round(float(column[part].mean()), 2) for column, part in zip(of_sets, rows, strict=True)]
            lines.append({"property": name, "group": group, "means": edges} | _gain(rows, golds, on, off))
    return lines


def _genres(
    sets: Sequence[StsObjective], golds: Sequence[Floats], on: Sequence[Floats], off: Sequence[Floats]
) -> list[Figures]:
    lines = []
    for i, one in enumerate(sets):
        subsets = np.array(one.dataset.subsets)[one.chosen_by]
        for genre in dict.fromkeys(subsets.tolist()):
            rows = np.flatnonzero(subsets == genre)
            if len(rows) > 2:
                lines.append({"set": one.dataset.name, "genre": genre} | _gain([rows], [golds[i]], [on[i]], [off[i]]))
    return lines


def _gain(rows: Sequence[Rows], golds: Sequence[Floats], on: Sequence[Floats], off: Sequence[Floats]) -> Figures:
    """Return the number of pairs, the correlation without prepending, and its gain, among some rows of each set."""
    parts = [[column[part] for column, part in zip(columns, rows, strict=True)] for columns in (golds, on, off)]
    samples = Resamples(parts[0])
    with_it, without = samples.spearman(parts[1]), samples.spearman(parts[2])
    return {"pairs": sum(map(len, rows)), "off": estimate(without), "gain": estimate(with_it - without)}


def _first(
    sets: Sequence[StsObjective], properties: Properties, items: int
) -> tuple[list[StsObjective], dict[str, dict[str, list[float]]]]:
    """Return some pairs of every set with their properties."""
    smaller, theirs = [], {}
    for one in sets:
        data, rows = one.dataset, np.linspace(0, one.count - 1, min(items, one.count)).astype(int).tolist()
        columns = ([column[i] for i in rows] for column in (data.first, data.second, data.scores, data.subsets))
        smaller.append(StsObjective(type(data)(data.name, *columns)))
        theirs[data.name] = {name: [values[i] for i in rows] for name, values in properties[data.name].items()}
    return smaller, theirs
