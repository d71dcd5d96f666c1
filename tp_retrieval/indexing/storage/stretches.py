"""The table `stretches`: stretches of a sample of documents, on which maps `within:K` are fitted.

A view's sample are the documents with the lowest `priority`, a digest of their text; equal texts count once. So it is the
same in whatever order documents are added. A deleted document takes its stretches along, and the next one that is added
takes its place. What is damaged is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tp_retrieval.embedding.maps.within import (
    ViewStretches,
    by_priority,
    joined,
    needed_views,
    priority_of,
    sample_size,
    sampled_views,
    unread_of_sample,
)
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import record_digest
from tp_retrieval.types import Float32Array, Stretches, VectorView

logger = logging.getLogger(__name__)

_SELECT = "SELECT seq, view, priority, count, data, digest FROM stretches"


class _Record(NamedTuple):
    """The key of a record, without its vectors."""

    seq: int
    view: int
    priority: int


class StretchTable:
    """The stretches of an index, a record for each document and view of the sample. Changes are made in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- changes

    def insert(self, seqs: Seqs, texts: Sequence[str], stretches: Sequence[Stretches], views: Sequence[VectorView]) -> None:
        """Add the stretches of rows, and remove those of rows that no longer belong to a view's sample."""
        holder = {(record.view, record.priority): record.seq for record in self._records()}
        for seq, text, of_text in zip(seqs.tolist(), texts, stretches, strict=True):
            for view, vectors in of_text.items():
                priority = priority_of(text)
                if holder.setdefault((view, priority), seq) == seq:  # else an equal text has some
                    values = (seq, view, priority, len(vectors), vectors.astype("<f4").tobytes())
                    self._remove([(seq, view)])
                    sql = "INSERT INTO stretches VALUES (?, ?, ?, ?, ?, ?)"
                    self._database.execute(sql, (*values, record_digest(*values)))
        for view in needed_views(views):
            sql = "SELECT seq FROM stretches WHERE view = ? ORDER BY priority, seq LIMIT -1 OFFSET ?"
            beyond = self._database.numbers(sql, (view, sample_size(views[view])))
            self._remove((seq, view) for seq in beyond.tolist())

    def remove(self, seqs: Iterable[int]) -> None:
        """Remove the stretches of rows."""
        gone = {*seqs}
        if gone:
            self._remove((record.seq, record.view) for record in self._records() if record.seq in gone)

    def clear(self) -> None:
        """Remove all stretches."""
        self._database.execute("DELETE FROM stretches")

    def remove_damaged(self) -> None:
        """Remove damaged records, and those of rows that are gone."""
        self._remove([*self._damaged()])

    def _remove(self, records: Iterable[tuple[int, int]]) -> None:
        self._database.execute_many("DELETE FROM stretches WHERE seq IS ? AND view IS ?", [*records])

    # -- reading

    def wanted(
        self,
        texts: Sequence[str],
        views: Sequence[VectorView],
        replaced: Collection[int] = (),
        upcoming: Collection[int] = (),
    ) -> list[frozenset[int]]:
        """Return for each text the views to whose sample it would belong if all were added and some rows were replaced.

        `upcoming` are the priorities of texts that will be added later. A text that equals one of the sample has its views
        that are read of a sample alone read, too, so that equal texts have equal vectors.
        """
        if not needed_views(views):
            return [frozenset()] * len(texts)
        priorities, read = [priority_of(text) for text in texts], self._read_priorities(replaced)
        numbers = {priority: i for i, priority in reversed(list(enumerate(priorities)))}  # of equal texts the first
        later = dict.fromkeys(upcoming, -1)
        unread = unread_of_sample(later | numbers, views, read)
        sampled, wanted = sampled_views(views), []
        for i, priority in enumerate(priorities):
            again = {view for view in sampled if priority in read.get(view, set())}
            of_equal = unread.get(numbers[priority], frozenset()) & sampled
            wanted.append(unread.get(i, frozenset()) | of_equal | again)
        return wanted

    def missing(self, views: Sequence[VectorView]) -> dict[int, frozenset[int]]:
        """Return the rows that belong to a view's sample without having stretches of it, each with those views.

        Reads every text.
        """
        numbers = by_priority(self._database.each("SELECT seq, text FROM documents ORDER BY seq"))
        return unread_of_sample(numbers, views, self._read_priorities())

    def read_counts(self) -> dict[int, int]:
        """Return of how many documents stretches were read, by view; some have a single one."""
        return dict(self._database.execute("SELECT view, count(*) FROM stretches GROUP BY view"))

    def seqs_of(self, view: int) -> Seqs:
        """Return the rows of which a view's stretches were read, ascending."""
        return np.sort(self._database.numbers("SELECT seq FROM stretches WHERE view = ?", (view,)))

    def counts(self) -> dict[int, int]:
        """Return how many documents have several stretches, by view."""
        return dict(self._database.execute("SELECT view, count(*) FROM stretches WHERE count > 1 GROUP BY view"))

    def of_views(self, views: Sequence[VectorView]) -> Mapping[int, ViewStretches]:
        """Return the stretches of each view whose map needs them."""
        return {view: self._of_view(view, views[view]) for view in needed_views(views)}

    def by_row(self, views: Sequence[VectorView]) -> Mapping[int, Stretches]:
        """Return the stretches of each row that has some."""
        rows: dict[int, dict[int, Float32Array]] = {}
        for view in needed_views(views):
            for seq, vectors in self._vectors(view, views[view]).items():
                rows.setdefault(seq, {})[view] = vectors
        return rows

    def _of_view(self, number: int, view: VectorView) -> ViewStretches:
        return joined(self._vectors(number, view), view.asymmetric)

    def _vectors(self, number: int, view: VectorView) -> dict[int, Float32Array]:
        """Return the stretches `(stretches, width)` of a view by row."""
        vectors = {}
        for *values, digest in self._database.execute(f"{_SELECT} WHERE view = ? ORDER BY seq", (number,)):
            seq, _, _, count, data = values
            if record_digest(*values) != digest or len(data) != 4 * count * view.width:
                logger.warning("%s: stretches of record %s are damaged and left out", self._database.file, seq)
                continue
            vectors[seq] = np.frombuffer(data, "<f4").reshape(count, view.width)
        return vectors

    def problems(self) -> Iterable[str]:
        """Yield what is wrong with the records."""
        yield from self._damaged().values()

    def _damaged(self) -> dict[tuple[Any, Any], str]:
        """Return the records that do not have their digest or their row, with a sentence for people."""
        rows = {*self._database.numbers("SELECT seq FROM documents").tolist()}
        damaged = {}
        for seq, view, *values, digest in self._database.execute(_SELECT):
            name = f"{self._database.file}: the stretches of record {seq}, view {view}"
            if record_digest(seq, view, *values) != digest:
                damaged[seq, view] = f"{name} are damaged; their digest does not fit"
            elif seq not in rows:
                damaged[seq, view] = f"{name} are of no stored document"
        return damaged

    def _read_priorities(self, without: Collection[int] = ()) -> dict[int, set[int]]:
        """Return the priorities of the documents that have stretches, by view, leaving out some rows."""
        priorities: dict[int, set[int]] = {}
        for record in self._records():
            if record.seq not in without:
                priorities.setdefault(record.view, set()).add(record.priority)
        return priorities

    def _records(self) -> list[_Record]:
        return [_Record(*row) for row in self._database.execute("SELECT seq, view, priority FROM stretches")]
