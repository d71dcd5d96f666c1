"""The store as a whole: what its file holds, what a filter selects, and what is refused at its door."""

import sqlite3

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError, IncompatibleIndexError, IndexAccessError, IndexExistsError, IndexNotFoundError
from tp_retrieval.indexing.search.filters import parsed
from tp_retrieval.indexing.storage.store import Store

TEXTS = ["a dog", "a cat", "a dog and a cat", "nothing"]


@pytest.fixture
def store(filled):
    return filled(TEXTS, [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}])


def column(store, sql):
    with sqlite3.connect(store.file) as connection:
        rows = [row[0] for row in connection.execute(sql)]
    connection.close()
    return rows


def test_a_delete_takes_rows_words_and_metadata_and_counts(store):
    with store.transaction():
        assert store.delete(store.documents.seqs_of(["d1", "d3", "d1", "unknown"])) == 2
    assert column(store, "SELECT id FROM documents ORDER BY seq") == ["d2", "d4"]
    assert column(store, "SELECT seq FROM deletions ORDER BY number") == [1, 3]
    assert column(store, "SELECT DISTINCT seq FROM facts ORDER BY seq") == [2, 4]
    assert set(store.fulltext.search("dog cat", 9)) == {2}


def test_clear_counts_and_empties_every_table_of_documents(store):
    generation = store.meta.get("generation")
    with store.transaction():
        assert store.clear() == 4
    assert [column(store, f"SELECT count(*) FROM {t}") for t in ("documents", "facts", "deletions", "maps")] == [[0]] * 4
    assert store.fulltext.search("dog", 9) == {}
    assert store.meta.get("generation") == generation + 1


@pytest.mark.parametrize(
    ("where", "ids", "want"),
    [
        (None, None, None),
        ({"n": {"$gt": 0}}, None, [2, 3, 4]),
        (None, ["d4", "d1", "unknown"], [1, 4]),
        ({"n": {"$gt": 0}}, ["d4", "d1"], [4]),
        ({"$not": {"n": 1}}, None, [1, 3, 4]),
        ({"n": 9}, ["d1"], []),
    ],
)
def test_select_is_the_rows_of_both_restrictions(store, where, ids, want):
    seqs = store.select(None if where is None else parsed(where), ids)
    assert (seqs if seqs is None else seqs.tolist()) == want


def test_everything_is_what_the_caller_says_it_is(store):
    assert store.select(parsed({"$not": {"n": 1}}), everything=np.array([1, 2])).tolist() == [1]


def test_a_damaged_row_can_be_deleted_and_leaves_no_word_behind(store):
    store.database.execute("UPDATE documents SET text = 'another text' WHERE seq = 3")
    with store.transaction():
        assert store.delete(store.documents.seqs_of(["d3"])) == 1
    assert list(store.problems()) == []
    assert set(store.fulltext.search("dog", 9)) == {1}


def test_what_is_at_a_path_is_refused_by_name(store, tmp_path):
    with pytest.raises(IndexNotFoundError, match=r"no index at .*missing: index\.sqlite is missing"):
        Store(tmp_path / "missing")
    with pytest.raises(IndexExistsError, match="there is an index at"):
        Store.create(store.file.parent, store.meta.read())
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "index.sqlite").symlink_to(store.file)
    with pytest.raises(IndexAccessError, match="is a link out of its folder"):
        Store(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IndexAccessError, match="can't make"):
        Store.create(tmp_path / "file" / "below", store.meta.read())


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("UPDATE meta SET value = '99' WHERE key = 'format'", IncompatibleIndexError, "format stored 99"),
        ("UPDATE meta SET value = 'x' WHERE key = 'format'", CorruptIndexError, "meta record 'format' is damaged"),
        ("DELETE FROM meta", IndexNotFoundError, "its making was cut short"),
        ("CREATE TABLE surplus(x)", CorruptIndexError, "its tables are not those of an index of format 5"),
        ("DROP TABLE facts", CorruptIndexError, "its tables are not those of an index of format 5"),
    ],
)
def test_a_file_of_another_shape_is_refused(store, sql, error, words):
    store.database.execute(sql)
    with pytest.raises(error, match=words):
        Store(store.file.parent)
