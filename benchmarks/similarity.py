"""Spearman's correlation of the recipe `sts` with human scores, beside plain PromptEOL at the last exit, in pairs.

Maps are fitted on the sentences that are compared, without their scores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from benchmarks.common import as_record, computed_in, load, read_pairs
from tp_retrieval import Recipe
from tp_retrieval.embedding.recipe import View
from tp_retrieval.evaluation.evaluate import evaluate_sts

SETS = ("STSB-dev", "SICKR-trial", "STS12", "STSB-test-de")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--sets", nargs="+", default=SETS)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every set: PromptEOL, the recipe, the recipe without maps, and gains."""
    recipe = load(options, "sts", whole=True)
    prompt = Recipe.load("prompteol").document
    plain = recipe.with_recipe(Recipe(prompt, prompt, [View(recipe.backbone.n_blocks)]))
    raw_views = tuple(replace(view, postprocess="none") for view in recipe.recipe.views)
    unmapped = recipe.with_recipe(replace(recipe.recipe, views=raw_views))
    figures = {}
    for name in options.sets:
        data = read_pairs(options, name)
        base, tuned, raw = (evaluate_sts(embedder, data) for embedder in (plain, recipe, unmapped))
        estimates = {"prompteol": base.spearman, "recipe": tuned.spearman, "without maps": raw.spearman}
        estimates |= {"gain": tuned.gain(base)}
        figures[name] = {"pairs": len(data.scores)} | {key: as_record(value) for key, value in estimates.items()}
        print(name, figures[name], flush=True)
    return computed_in(recipe) | {"sets": figures}
