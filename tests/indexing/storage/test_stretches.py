"""The stored sample of stretches: which rows it holds, and what happens to damaged records."""

import numpy as np
import pytest

from tests.toy import StretchEmbedder
from tp_retrieval import Index
from tp_retrieval.embedding.maps import within
from tp_retrieval.embedding.maps.within import priority_of
from tp_retrieval.types import VectorView

VIEWS = [VectorView(2, "within:1"), VectorView(3), VectorView(2, "within:1", asymmetric=True)]
TEXTS = [f"text {i}" for i in range(12)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(within, "SAMPLE", 5)
    monkeypatch.setattr(within, "SAMPLE_ASYMMETRIC", 3)


@pytest.fixture
def table(filled):
    return filled(TEXTS).stretches


def vectors(seq, count=2, width=2):
    return np.arange(count * width, dtype="f4").reshape(count, width) + seq


def insert(table, seqs):
    of_rows = [{0: vectors(seq), 2: vectors(-seq, 3)} for seq in seqs]
    table.insert(np.array(seqs), [TEXTS[seq - 1] for seq in seqs], of_rows, VIEWS)


def lowest(count, seqs=range(1, 13)):
    return sorted(sorted(seqs, key=lambda seq: priority_of(TEXTS[seq - 1]))[:count])


def held(table, view):
    return sorted(record.seq for record in table._records() if record.view == view)


def test_a_view_keeps_the_rows_of_lowest_priority_in_whatever_order_they_come(table):
    for part in ([3, 9, 1], [12, 2, 5, 7], [4, 6, 8, 10, 11]):
        insert(table, part)
    assert (held(table, 0), held(table, 2)) == (lowest(5), lowest(3))
    kept = table.of_views(VIEWS)
    assert kept.keys() == {0, 2}
    assert kept[0].documents.tolist() == np.repeat(lowest(5), 2).tolist()
    assert kept[0].vectors.tolist() == np.concatenate([vectors(seq) for seq in lowest(5)]).tolist()
    assert (kept[0].asymmetric, kept[2].asymmetric) == (False, True)
    assert table.counts() == {0: 5, 2: 3}


def test_stretches_are_wanted_of_texts_that_would_belong_if_all_were_added(table):
    for view, count in ((0, 5), (2, 3)):
        wanted = [seq for seq, views in enumerate(table.wanted(TEXTS, VIEWS), 1) if view in views]
        assert wanted == lowest(count)
    assert table.wanted(TEXTS, [VectorView(2)] * 3) == [frozenset()] * 12
    insert(table, range(1, 13))
    assert table.wanted(TEXTS, VIEWS) == [frozenset()] * 12  # they have theirs
    assert table.wanted([], VIEWS) == []
    table.remove(lowest(2))
    wanted = [seq for seq, views in enumerate(table.wanted(TEXTS, VIEWS), 1) if views]
    assert wanted == lowest(2)


def test_equal_texts_count_once(filled):
    texts = [*TEXTS[:4], *[TEXTS[0]] * 8]
    table = filled(texts).stretches
    assert sum(0 in views for views in table.wanted(texts, VIEWS)) == 4
    for seqs in ([1, 2, 3, 4, 5], [6, 7, 12]):
        of_rows = [{0: vectors(seq), 2: vectors(seq)} for seq in seqs]
        table.insert(np.array(seqs), [texts[seq - 1] for seq in seqs], of_rows, VIEWS)
    assert held(table, 0) == [1, 2, 3, 4]
    assert table.missing(VIEWS) == {}
    assert table.wanted(texts, VIEWS) == [frozenset()] * 12


def test_what_is_missing_of_the_sample_is_named_by_row_and_view(table):
    everything = {seq: frozenset({0, 2} if seq in lowest(3) else {0}) for seq in lowest(5)}
    assert table.missing(VIEWS) == everything
    insert(table, lowest(2))
    assert table.missing(VIEWS) == {seq: views for seq, views in everything.items() if seq not in lowest(2)}
    assert table.missing([VectorView(2)]) == {}


def test_removed_rows_take_their_stretches_along(table):
    insert(table, range(1, 13))
    gone = lowest(5)[1]
    table.remove([gone, 99])
    assert gone not in held(table, 0)
    assert len(held(table, 0)) == 4
    table.clear()
    assert table._records() == []


def test_a_row_of_one_stretch_is_known_and_not_counted(table):
    table.insert(np.array([1]), TEXTS[:1], [{0: vectors(1, 1), 2: np.zeros((0, 2), "f4")}], VIEWS)
    assert table.counts() == {}
    assert table.of_views(VIEWS)[0].count == 0
    assert 1 not in table.missing(VIEWS)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", b"1234"),
        ("data", None),
        ("priority", 5),
        ("count", 3),
        ("digest", b"x"),
        ("digest", None),
        ("seq", 77),
        ("view", 1),
    ],
)
def test_a_damaged_record_is_left_out_named_and_removed(table, column, value, caplog):
    insert(table, lowest(5))
    assert list(table.problems()) == []
    if value is None:  # as a lost page gives it; the table itself refuses it
        table._database.execute("PRAGMA writable_schema = ON")
        table._database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ' BLOB NOT NULL', ' BLOB') WHERE name = 'stretches'"
        )
        table._database.execute("PRAGMA writable_schema = RESET")
    seq = lowest(5)[2]
    table._database.execute(f"UPDATE stretches SET {column} = ? WHERE seq = ? AND view = 0", (value, seq))
    assert table.of_views(VIEWS)[0].count == 4
    (problem,) = table.problems()
    assert "damaged" in problem
    if column not in ("seq", "view"):
        assert f"the stretches of record {seq}, view 0" in problem
        assert "damaged and left out" in caplog.text
    table.remove_damaged()
    assert list(table.problems()) == []
    assert len(held(table, 0)) == 4


def test_stretches_without_a_row_are_named(table):
    insert(table, lowest(5))
    table._database.execute("DELETE FROM documents WHERE seq = ?", (lowest(1)[0],))
    assert [problem for problem in table.problems() if "of no stored document" in problem]


def test_a_damaged_record_of_an_index_is_found_repaired_and_read_again(tmp_path):
    texts = [f"one text {i} about {'cats and dogs' if i % 3 else 'cars and roads'}" for i in range(20)]
    with Index.create(tmp_path / "i", StretchEmbedder()) as index:
        index.add(texts)
        before = index.info()
        index._store.database.execute("UPDATE stretches SET data = zeroblob(length(data)) WHERE view = 0")
        assert len(index.verify().problems) == 5
        assert index.verify(repair=True).ok
        assert "5 more must be read by the model" in index.info().fallbacks[0]
        index.rebuild()
        assert index.info().fallbacks == ()
        assert index.info().maps_digest == before.maps_digest
