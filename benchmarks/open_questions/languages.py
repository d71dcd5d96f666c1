"""Prepending in German beside English: STS-B, the test part in German (machine-translated) and the dev part in English.

    python -m benchmarks.open_questions.languages --data DIR --model A --model B

The German pairs are read through prompts in English and in German. Scope and exit are chosen as in `scopes`, by set.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.open_questions import scopes
from benchmarks.open_questions.common import SCOPES, Figures, Prompt, finish, known_prompts, parser, sts_set
from tp_retrieval import Embedder

_ASK = 'bedeutet in einem Wort:"'
GERMAN = (
    Prompt("prompteol, German", (f'Dieser Satz : "{{text}}" {_ASK}',)),
    Prompt(
        "icl, German",
        (f'Dieser Satz : "Ein Jockey reitet auf einem Pferd." {_ASK}Reitsport".Dieser Satz : "{{text}}" {_ASK}',),
    ),
)
_SCOPES = [scope for scope in SCOPES if scope[0] == 1]


def measure(embedder: Embedder, data: Path, items: int | None = None) -> Figures:
    """Return the figures of a model, prompts named by set."""
    english = [known_prompts()[name] for name in ("prompteol", "icl")]
    found = scopes.measure(embedder, [sts_set(data, "STSB-dev", items)], english, _SCOPES)
    german = scopes.measure(embedder, [sts_set(data, "STSB-test-de", items)], [*english, *GERMAN], _SCOPES)
    prompts = {f"STSB-dev: {name}": of_prompt for name, of_prompt in found["prompts"].items()}
    prompts |= {f"STSB-test-de: {name}": of_prompt for name, of_prompt in german["prompts"].items()}
    sets, rows = found["sets"] | german["sets"], found["rows that ran"] + german["rows that ran"]
    return found | {"prompts": prompts, "sets": sets, "rows that ran": rows}


def tables(figures: Figures) -> dict[str, str]:
    """Return the table of two by two."""
    return {"two by two": scopes.tables(figures)["two by two"]}


def main() -> None:
    """Measure and print."""
    given = parser(__doc__).parse_args()
    finish(given, lambda embedder: measure(embedder, given.data, given.items), tables)


if __name__ == "__main__":
    main()
