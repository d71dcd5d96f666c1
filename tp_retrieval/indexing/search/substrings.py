"""BM25 by scanning the texts, for what trigrams can't match: words of one or two letters, and text after a NUL.

FTS5's trigram tokenizer has no token of fewer than three letters, so that 東京 matches nothing, and it stops at a NUL.
The scan takes time in proportion to the corpus; it runs for queries that hold such a word and texts that hold a NUL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tp_retrieval.sqlite.database import Database, chunks

LETTERS = 3
"""Letters of a trigram; shorter terms are searched by scanning."""

_K1, _B = 1.2, 0.75  # as in FTS5's bm25()
_LEAST_IDF = 1e-6  # as in FTS5, of a term that more than half of the rows hold


class Substrings:
    """BM25 of terms that are any string, over the texts of the table `documents`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lengths: dict[int, int] = {}
        self._with_nul: set[int] = set()
        self._last_seq = self._deletion = 0  # of the rows and deletions that were read
        self._latest: tuple[tuple[object, ...], dict[int, float]] = ((), {})

    def scores(self, terms: Sequence[str], among: Iterable[int] | None = None) -> dict[int, float]:
        """Return the scores of the rows (of `among`) that hold a short term, or a longer one behind a NUL.

        A score does not depend on `among`. Those of the latest query are kept: a hybrid search asks for them twice.
        """
        short = [term for term in terms if len(term) < LETTERS]
        long = [term for term in terms if len(term) >= LETTERS]
        self._follow()
        if not short and not (long and self._with_nul):
            return {}
        asked = (*terms, self._last_seq, self._deletion)
        if self._latest[0] != asked:
            self._latest = asked, self._scores(short, long)
        scores = self._latest[1]
        return dict(scores) if among is None else {seq: scores[seq] for seq in map(int, among) if seq in scores}

    def _scores(self, short: Sequence[str], long: Sequence[str]) -> dict[int, float]:
        scores: dict[int, float] = {}
        mean = max(sum(self._lengths.values()) / max(len(self._lengths), 1), 1.0)
        counts = self._counts(short) | self._counts_behind_nul(long)
        for term, rows in counts.items():
            holding = len(rows) + (self._rows_before_nul(term, rows) if len(term) >= LETTERS else 0)
            idf = max(math.log((len(self._lengths) - holding + 0.5) / (holding + 0.5)), _LEAST_IDF)
            for seq, count in rows.items():
                norm = count + _K1 * (1 - _B + _B * self._lengths[seq] / mean)
                scores[seq] = scores.get(seq, 0.0) + idf * count * (_K1 + 1) / norm
        return scores

    def _counts(self, terms: Sequence[str]) -> dict[str, dict[int, int]]:
        """Return how often each term is in the rows that hold it, by one pass over the texts."""
        counts: dict[str, dict[int, int]] = {term: {} for term in terms}
        variants = list(dict.fromkeys(form for term in terms for form in (term, term.lower(), term.upper(), term.title())))
        for part in chunks(variants):
            condition = " OR ".join(["instr(text, ?)"] * len(part))
            _count(self._database.each(f"SELECT seq, text FROM documents WHERE {condition}", part), counts)
        return counts

    def _counts_behind_nul(self, terms: Sequence[str]) -> dict[str, dict[int, int]]:
        counts: dict[str, dict[int, int]] = {term: {} for term in terms}
        if terms:
            rows = self._database.select_in("SELECT seq, text FROM documents WHERE seq IN (?)", sorted(self._with_nul))
            _count(((seq, text.partition("\0")[2]) for seq, text in rows), counts)
        return counts

    def _rows_before_nul(self, term: str, behind: Iterable[int]) -> int:
        """Return in how many rows FTS5 finds a term, those with the term behind a NUL, too, left out."""
        quoted = term.replace('"', '""')
        scores = self._database.numbers("SELECT rowid FROM fulltext WHERE fulltext MATCH ?", (f'"{quoted}"',))
        return len(set(scores.tolist()) - set(behind))

    def _follow(self) -> None:
        """Read the lengths and NULs of new rows, and drop those of deleted ones; a row's text never changes."""
        gone = self._database.execute(
            "SELECT number, seq FROM deletions WHERE number > ? ORDER BY number", (self._deletion,)
        )
        for number, seq in gone:
            self._lengths.pop(seq, None)
            self._with_nul.discard(seq)
            self._deletion = number
        self._read_new()
        if len(self._lengths) != self._database.execute("SELECT count(*) FROM documents")[0][0]:  # all rows were removed
            self._lengths, self._with_nul, self._last_seq = {}, set(), 0
            self._read_new()

    def _read_new(self) -> None:
        with_nul = "CASE WHEN instr(text, char(0)) THEN text END"  # SQLite's length() stops at a NUL
        sql = f"SELECT seq, length(text), {with_nul} FROM documents WHERE seq > ? ORDER BY seq"
        for seq, length, text in self._database.each(sql, (self._last_seq,)):
            self._lengths[seq] = length if text is None else len(text)
            if text is not None:
                self._with_nul.add(seq)
            self._last_seq = seq


def _count(rows: Iterable[tuple[int, str]], counts: dict[str, dict[int, int]]) -> None:
    lowered = {term: term.lower() for term in counts}
    for seq, text in rows:
        low = text.lower()
        for term, form in lowered.items():
            if count := low.count(form):
                counts[term][seq] = count
