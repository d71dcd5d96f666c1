"""What a user's query looks for in the full text: its words are data, FTS5's own syntax has no meaning in them."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Tokenizer = Literal["words", "trigram"]
TOKENIZERS: dict[str, str] = {"words": "porter unicode61", "trigram": "trigram"}
"""FTS5's names: stemmed words, or every three letters in a row for languages that put no spaces between words."""

_MOST_TERMS = 200


def match_expression(query: str, tokenizer: str) -> str | None:
    """Return the FTS5 expression that finds any of a query's terms, None if it has none."""
    terms = re.findall(r"\w+", unicodedata.normalize("NFC", query))
    if tokenizer == "trigram":
        terms = [word[i : i + 3] for word in terms for i in range(len(word) - 2)]
    distinct = list(dict.fromkeys(terms))[:_MOST_TERMS]
    return " OR ".join(f'"{term}"' for term in distinct) or None
