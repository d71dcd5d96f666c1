"""What trigrams can't find, found by reading the texts: words of one or two letters, and text behind a NUL.

FTS5's trigram tokenizer makes no token of fewer than three letters, so that 東京 matches nothing, and it stops at a NUL.
The scan takes time in proportion to the corpus; it runs for queries that hold such a word and texts that hold a NUL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tp_retrieval.indexing.database import Database, chunks, marks

_K1, _B = 1.2, 0.75  # as in FTS5's bm25()
_LEAST_IDF = 1e-6  # as in FTS5, of a term that more than half of the rows hold


def short_words(query: str) -> list[str]:
    """Return a query's words of one or two letters, those of ASCII alone left out: they are in nearly every text."""
    return [word for word in dict.fromkeys(query.replace("\0", " ").split()) if len(word) < 3 and not word.isascii()]


class Substrings:
    """BM25 over the texts of the table `documents`, term by term, where a term is any string."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen = 0  # the last row whose length is counted, and whose NULs are looked for
        self._letters = self._texts = 0
        self._with_nul: list[int] = []

    def scores(self, query: str, trigrams: Sequence[str], among: Sequence[int] | None = None) -> dict[int, float]:
        """Return the scores of the rows (of `among`) that hold a short word of the query, or a trigram behind a NUL."""
        self._read_new()
        found: dict[int, float] = {}
        for word in short_words(query):
            self._add(found, self._holding(word, among), word)
        hidden = self._with_nul if among is None else [seq for seq in self._with_nul if seq in set(among)]
        for trigram in trigrams if hidden else ():
            texts = {seq: text.partition("\0")[2] for seq, text in self._texts_of(hidden)}
            self._add(found, {seq: text for seq, text in texts.items() if trigram.lower() in text.lower()}, trigram)
        return found

    def _add(self, found: dict[int, float], texts: dict[int, str], term: str) -> None:
        idf = max(math.log((self._texts - len(texts) + 0.5) / (len(texts) + 0.5)), _LEAST_IDF)
        mean = max(self._letters / max(self._texts, 1), 1.0)
        for seq, text in texts.items():
            count = text.lower().count(term.lower())
            norm = count + _K1 * (1 - _B + _B * len(text) / mean)
            found[seq] = found.get(seq, 0.0) + idf * count * (_K1 + 1) / norm

    def _holding(self, word: str, among: Sequence[int] | None) -> dict[int, str]:
        variants = list(dict.fromkeys([word, word.lower(), word.upper(), word.title()]))
        condition = " OR ".join(["instr(text, ?)"] * len(variants))
        if among is None:
            return dict(self._database.each(f"SELECT seq, text FROM documents WHERE {condition}", variants))
        return {seq: text for seq, text in self._texts_of(among) if any(variant in text for variant in variants)}

    def _texts_of(self, seqs: Sequence[int]) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for part in chunks(seqs):
            rows = self._database.execute(f"SELECT seq, text FROM documents WHERE seq IN ({marks(part)})", part)
            found += [(row[0], row[1]) for row in rows]
        return found

    def _read_new(self) -> None:
        """Count letters and note NULs of rows that came since; a row's text never changes under its number."""
        letters, texts, with_nul, seen = self._letters, self._texts, list(self._with_nul), self._seen
        sql = "SELECT seq, length(text), instr(text, char(0)) FROM documents WHERE seq > ? ORDER BY seq"
        for seq, length, nul in self._database.each(sql, (self._seen,)):
            letters, texts, seen = letters + length, texts + 1, seq
            if nul:
                with_nul.append(seq)
        self._letters, self._texts, self._with_nul, self._seen = letters, texts, with_nul, seen
