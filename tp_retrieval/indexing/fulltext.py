"""The full text: words of documents in SQLite's FTS5, scored by BM25.

A query's words are data; FTS5's own syntax has no meaning in them.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from tp_retrieval.errors import CorruptIndexError, IndexAccessError
from tp_retrieval.indexing.database import Database, chunks, marks
from tp_retrieval.indexing.facts import Seqs

logger = logging.getLogger(__name__)

Tokenizer = Literal["words", "trigram"]
TOKENIZERS: dict[str, str] = {"words": "porter unicode61", "trigram": "trigram"}
"""FTS5's names: stemmed words, or every three letters in a row for languages that put no spaces between words."""

_FEW = 500  # rows up to which a search among them asks for each by its number
_MOST_TERMS = 200


def match_expression(query: str, tokenizer: str) -> str | None:
    """Return the FTS5 expression that finds any of a query's terms, None if it has none."""
    if tokenizer == "trigram":
        terms = [
            word[i : i + 3].replace('"', '""') for word in query.replace("\0", " ").split() for i in range(len(word) - 2)
        ]
    else:
        terms = re.findall(r"\w+", unicodedata.normalize("NFC", query))
    distinct = list(dict.fromkeys(terms))[:_MOST_TERMS]
    return " OR ".join(f'"{term}"' for term in distinct) or None


class FullText:
    """The FTS5 table over the documents' texts; every change is made inside a transaction of its owner."""

    def __init__(self, database: Database, tokenizer: str) -> None:
        self._database = database
        self._tokenizer = tokenizer

    def insert(self, texts: Iterable[tuple[int, str]]) -> None:
        """Add rows `(seq, text)`."""
        self._database.execute_many("INSERT INTO fulltext(rowid, text) VALUES (?, ?)", texts)

    def delete(self, seq: int, text: str) -> None:
        """Forget a row, whose text is what it was when it was added."""
        self._database.execute("INSERT INTO fulltext(fulltext, rowid, text) VALUES('delete', ?, ?)", (seq, text))

    def clear(self) -> None:
        """Forget all rows."""
        self._database.execute("INSERT INTO fulltext(fulltext) VALUES('delete-all')")

    def remake(self) -> None:
        """Make the table anew from the documents."""
        self._database.execute("INSERT INTO fulltext(fulltext) VALUES('rebuild')")

    def search(self, query: str, k: int, among: Seqs | None = None) -> dict[int, float]:
        """Return the best k rows (of `among`) for any of the query's words with their BM25 score, higher is better.

        FTS5's `bm25()` has k1 = 1.2 and b = 0.75 and counts down from 0, so its sign is turned.
        """
        match = match_expression(query, self._tokenizer)
        if match is None or k < 1:
            return {}
        if among is None:
            sql = "SELECT rowid, -bm25(fulltext) AS score FROM fulltext WHERE fulltext MATCH ?"
            return self._scored(f"{sql} ORDER BY score DESC, rowid LIMIT ?", (match, k))
        if len(among) <= _FEW:
            found = self.scores(query, among.tolist())
            return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:k])
        every = self._database.execute("SELECT rowid, -bm25(fulltext) FROM fulltext WHERE fulltext MATCH ?", (match,))
        rows = np.array(every, dtype=np.float64).reshape(-1, 2)
        rows = rows[np.isin(rows[:, 0].astype(np.int64), among)]
        best = rows[np.lexsort((rows[:, 0], -rows[:, 1]))][:k]
        return {int(seq): float(score) for seq, score in best}

    def scores(self, query: str, seqs: Sequence[int]) -> dict[int, float]:
        """Return the BM25 score of those of some rows that hold any of the query's words."""
        match = match_expression(query, self._tokenizer)
        found: dict[int, float] = {}
        for part in chunks(seqs) if match else ():  # the + makes it one pass; without it, FTS5 takes one for each row
            sql = f"SELECT rowid, -bm25(fulltext) FROM fulltext WHERE fulltext MATCH ? AND +rowid IN ({marks(part)})"
            found |= self._scored(sql, (match, *part))
        return found

    def problems(self) -> Iterator[str]:
        """Yield how the table differs from the documents' texts."""
        try:
            self._database.execute("INSERT INTO fulltext(fulltext, rank) VALUES('integrity-check', 1)")
        except CorruptIndexError as error:
            yield f"{self._database.file}: full text does not fit the documents ({error})"
        except IndexAccessError as error:
            logger.warning("the full text can't be checked, FTS5 wants to write for it: %s", error)

    def _scored(self, sql: str, values: Sequence[Any]) -> dict[int, float]:
        return {int(seq): float(score) for seq, score in self._database.execute(sql, values)}
