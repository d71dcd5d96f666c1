"""The words of documents in SQLite's FTS5, scored by BM25.

A query's words are data; FTS5's own syntax has no meaning in them.
"""

from __future__ import annotations

import logging
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tp_retrieval.errors import CorruptIndexError, IndexAccessError, TruncationWarning
from tp_retrieval.indexing.search.substrings import LETTERS, Substrings
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.sqlite.database import Database

logger = logging.getLogger(__name__)

Tokenizer = Literal["words", "trigram"]
TOKENIZERS: dict[str, str] = {"words": "porter unicode61", "trigram": "trigram"}
"""FTS5's names: stemmed words, or every three letters in a row for languages that put no spaces between words."""

_FEW = 500  # rows up to which a search among them asks for each by its number
_MOST_TERMS = 200


def terms_of(query: str, tokenizer: str, *, warn: bool = True) -> list[str]:
    """Return the first 200 terms of a query that differ in more than case; for more there is a `TruncationWarning`.

    Under "trigram" these are every three letters in a row, and words of one or two letters that are not of ASCII alone.
    """
    if tokenizer == "trigram":
        words = query.replace("\0", " ").split()
        terms = [word[i : i + 3] for word in words for i in range(len(word) - 2)]
        terms += [word for word in words if len(word) < 3 and not word.isascii()]
    else:
        terms = re.findall(r"\w+", unicodedata.normalize("NFC", query))
    distinct = list({term.lower(): term for term in terms}.values())
    if warn and len(distinct) > _MOST_TERMS:
        warnings.warn(
            f"query: {len(distinct)} different terms; the full text is searched for the first {_MOST_TERMS}",
            TruncationWarning,
            stacklevel=5,
        )
    return distinct[:_MOST_TERMS]


def match_expression(terms: Sequence[str]) -> str | None:
    """Return the FTS5 expression that finds any of some terms, None if there are none."""
    quoted = (term.replace('"', '""') for term in terms)
    return " OR ".join(f'"{term}"' for term in quoted) or None


class FullText:
    """The FTS5 table over the documents' texts. Changes are made inside a transaction."""

    def __init__(self, database: Database, tokenizer: str) -> None:
        self._database = database
        self.tokenizer = tokenizer
        self._substrings = Substrings(database) if tokenizer == "trigram" else None

    def insert(self, texts: Iterable[tuple[int, str]]) -> None:
        """Add rows `(seq, text)`."""
        self._database.execute_many("INSERT INTO fulltext(rowid, text) VALUES (?, ?)", texts)

    def remove(self, seq: int, text: str) -> None:
        """Remove a row, given the text it was added with."""
        self._database.execute("INSERT INTO fulltext(fulltext, rowid, text) VALUES('delete', ?, ?)", (seq, text))

    def clear(self) -> None:
        """Remove all rows."""
        self._database.execute("INSERT INTO fulltext(fulltext) VALUES('delete-all')")

    def rebuild(self) -> None:
        """Fill the table anew from the documents."""
        self._database.execute("INSERT INTO fulltext(fulltext) VALUES('rebuild')")

    def search(self, query: str, k: int, among: Seqs | None = None) -> dict[int, float]:
        """Return the best k rows (of `among`) for any of the query's words with their BM25 score, higher is better.

        FTS5's `bm25()` has k1 = 1.2 and b = 0.75 and counts down from 0, so its sign is turned.
        """
        if k < 1:
            return {}
        terms = terms_of(query, self.tokenizer)
        if among is not None and len(among) <= _FEW:
            return _best(self.scores(query, among.tolist()), k)
        match = match_expression(self._indexed(terms))
        scanned = {} if self._substrings is None else self._substrings.scores(terms, among)
        sql = "SELECT rowid, -bm25(fulltext) AS score FROM fulltext WHERE fulltext MATCH ?"
        if among is None and not scanned:
            return self._scored(f"{sql} ORDER BY score DESC, rowid LIMIT ?", (match, k)) if match else {}
        rows = np.array(self._database.execute(sql, (match,)) if match else [], dtype=np.float64).reshape(-1, 2)
        if among is not None:
            rows = rows[np.isin(rows[:, 0].astype(np.int64), among)]
        if scanned:
            return _best(_sums({int(seq): float(score) for seq, score in rows}, scanned), k)
        best = rows[np.lexsort((rows[:, 0], -rows[:, 1]))][:k]
        return {int(seq): float(score) for seq, score in best}

    def scores(self, query: str, seqs: Sequence[int]) -> dict[int, float]:
        """Return the BM25 score of those of some rows that hold any of the query's words."""
        terms = terms_of(query, self.tokenizer, warn=False)
        match = match_expression(self._indexed(terms))
        scores: dict[int, float] = {}
        if match:  # the + makes it one pass; without it, FTS5 makes one for each row
            sql = "SELECT rowid, -bm25(fulltext) FROM fulltext WHERE fulltext MATCH ? AND +rowid IN (?)"
            scores = {int(seq): float(score) for seq, score in self._database.select_in(sql, seqs, before=(match,))}
        return scores if self._substrings is None else _sums(scores, self._substrings.scores(terms, seqs))

    def _indexed(self, terms: Sequence[str]) -> list[str]:
        """Return the terms that the tokenizer splits into tokens."""
        return [term for term in terms if self._substrings is None or len(term) >= LETTERS]

    def problems(self) -> Iterator[str]:
        """Yield a sentence if the table differs from the documents' texts."""
        try:
            self._database.execute("INSERT INTO fulltext(fulltext, rank) VALUES('integrity-check', 1)")
        except CorruptIndexError as error:
            yield f"{self._database.file}: full text does not fit the documents ({error})"
        except IndexAccessError as error:
            logger.warning("the full text can't be checked, FTS5 wants to write for it: %s", error)

    def _scored(self, sql: str, values: Sequence[Any]) -> dict[int, float]:
        return {int(seq): float(score) for seq, score in self._database.execute(sql, values)}


def _best(scores: Mapping[int, float], k: int) -> dict[int, float]:
    """Return the k highest scores, best first, equal ones in the order of rows."""
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k])


def _sums(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    return {seq: first.get(seq, 0.0) + second.get(seq, 0.0) for seq in first.keys() | second.keys()}
