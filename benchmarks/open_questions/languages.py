"""Prepending in German beside English: STS-B, the test part in German (machine-translated) and the dev part in English.

The German pairs are read through prompts in English and in German. Scope and exit are chosen as in `scopes`, by set.
"""

from __future__ import annotations

import argparse

from benchmarks.open_questions import scopes
from benchmarks.open_questions.common import SCOPES, Figures, Prompt, add_items, known_prompts, load_whole, named, sts_set

_ASK = 'bedeutet in einem Wort:"'
GERMAN = (
    Prompt("prompteol, German", (f'Dieser Satz : "{{text}}" {_ASK}',)),
    Prompt(
        "icl, German",
        (f'Dieser Satz : "Ein Jockey reitet auf einem Pferd." {_ASK}Reitsport".Dieser Satz : "{{text}}" {_ASK}',),
    ),
)
_SCOPES = [scope for scope in SCOPES if scope[0] == 1]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model, prompts named by set."""
    embedder, data, items = load_whole(options), options.data, options.items
    english = [known_prompts()[name] for name in ("prompteol", "icl")]
    found = scopes.of_prompts(embedder, [sts_set(data, "STSB-dev", items)], english, _SCOPES)
    german = scopes.of_prompts(embedder, [sts_set(data, "STSB-test-de", items)], [*english, *GERMAN], _SCOPES)
    prompts = {f"STSB-dev: {name}": of_prompt for name, of_prompt in found["prompts"].items()}
    prompts |= {f"STSB-test-de: {name}": of_prompt for name, of_prompt in german["prompts"].items()}
    sets, rows = found["sets"] | german["sets"], found["rows that ran"] + german["rows that ran"]
    return named(embedder, found | {"prompts": prompts, "sets": sets, "rows that ran": rows})
