"""The figures on the cards of shipped recipes: a recipe beside plain PromptEOL at the last exit, in pairs.

Run: python benchmarks/recipes.py sts FILE... [--model M] [--recipe R] [--output benchmarks/results/recipes.json]

Spearman's correlation over all pairs of a table, with 95% intervals and the paired interval of the gain. --without-maps
adds the recipe as it is where nothing was fitted.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import View
from tp_retrieval.evaluation.datasets import read_sts
from tp_retrieval.evaluation.evaluate import evaluate_sts

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=["sts"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--recipe", default="sts")
    parser.add_argument("--without-maps", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/recipes.json")
    arguments = parser.parse_args()
    embedder = Embedder.from_pretrained(arguments.model, recipe=arguments.recipe)
    recipe = embedder.recipe
    prompt = Recipe.load("prompteol").document
    plain = embedder.with_recipe(Recipe(prompt, prompt, [View(embedder.backbone.n_blocks)]))
    raw_views = tuple(replace(view, postprocess="none") for view in recipe.views)
    unmapped = embedder.with_recipe(replace(recipe, views=raw_views))
    table = Table("set", "pairs", "PromptEOL, last exit", arguments.recipe, "gain", "without maps")
    records = []
    for file in arguments.files:
        data = read_sts(file)
        base, tuned = evaluate_sts(plain, data), evaluate_sts(embedder, data)
        figures = {"prompteol": base.spearman, "recipe": tuned.spearman, "gain": tuned.gain(base)}
        if arguments.without_maps:
            figures["without_maps"] = evaluate_sts(unmapped, data).spearman
        records.append({"set": data.name, "pairs": len(data.scores)} | {k: asdict(v) for k, v in figures.items()})
        table.add_row(data.name, str(len(data.scores)), *map(str, figures.values()))
    Console(width=140).print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
