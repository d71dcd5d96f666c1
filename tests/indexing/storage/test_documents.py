"""Rows of documents as sqlite3 and hashlib read them."""

import hashlib

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError, Document
from tp_retrieval.indexing.storage.documents import Row
from tp_retrieval.sqlite.digest import record_digest

TEXTS = ["one", "two words", "three words here", ""]
VECTORS = np.array([[1, 3], [2, 9], [3, 16], [4, 0]], dtype=np.float32)


@pytest.fixture
def documents(filled):
    return filled(TEXTS, [{"n": i} for i in range(4)]).documents


def test_a_row_holds_text_metadata_little_endian_vector_and_digest(documents):
    sql = "SELECT seq, id, text, metadata, vector, digest FROM documents WHERE seq = 2"
    ((seq, id_, text, metadata, vector, digest),) = documents._database.execute(sql)
    assert (seq, id_, text, metadata) == (2, "d2", "two words", '{"n": 1}')
    assert np.frombuffer(vector, "<f4").tolist() == [2.0, 9.0]
    parts = [b"2", b"d2", b"two words", b'{"n": 1}', vector]
    assert digest == hashlib.sha256(b"".join(len(p).to_bytes(8, "little") + p for p in parts)).digest()


def test_documents_come_in_order_and_by_number(documents):
    want = [Document(text, {"n": i}, f"d{i + 1}") for i, text in enumerate(TEXTS)]
    assert list(documents) == want
    assert len(documents) == 4
    assert documents.by_seq([3, 1, 99]) == {3: want[2], 1: want[0]}


def test_ids_and_numbers_lead_to_each_other(documents):
    assert documents.seqs().tolist() == [1, 2, 3, 4]
    assert documents.seqs_of(["d4", "d2", "d4", "unknown"]).tolist() == [2, 4]
    assert sorted(row.id for row in documents.rows(np.array([4, 2, 99]))) == ["d2", "d4"]


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_vectors_are_yielded_in_order_whatever_the_batch(documents, after, batch):
    parts = list(documents.vectors(after, batch))
    assert all(len(seqs) <= batch for seqs, _ in parts)
    assert [int(seq) for seqs, _ in parts for seq in seqs] == list(range(after + 1, 5))
    assert [row.tolist() for _, vectors in parts for row in vectors] == VECTORS[after:].tolist()


def test_vectors_of_keeps_the_order_asked_for_and_names_a_missing_row(documents):
    assert documents.vectors_of(np.array([4, 1, 4])).tolist() == VECTORS[[3, 0, 3]].tolist()
    with pytest.raises(CorruptIndexError, match="record 9 is missing"):
        documents.vectors_of(np.array([1, 9]))


def test_deletions_are_a_log_and_numbers_never_come_back(documents):
    assert documents.last_deletion() == 0
    documents.remove([4, 2])
    assert documents.last_deletion() == 2
    assert [(n, s.tolist()) for n, s in (documents.deleted(0), documents.deleted(1), documents.deleted(2))] == [
        (2, [4, 2]),
        (2, [2]),
        (2, []),
    ]
    assert documents.seqs().tolist() == [1, 3]
    assert documents._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'documents'") == [(4,)]


@pytest.mark.parametrize("column", ["id", "text", "metadata", "vector"])
def test_a_damaged_column_is_named_by_its_record(documents, column):
    assert documents.damaged() == {}
    value = "x" if column != "vector" else b"12345678"
    documents._database.execute(f"UPDATE documents SET {column} = ? WHERE seq = 3", (value,))
    damaged = documents.damaged()
    assert list(damaged) == [3]
    assert "record 3 (id " in damaged[3]
    with pytest.raises(CorruptIndexError, match="record 3"):
        list(documents)
    with pytest.raises(CorruptIndexError, match="record 3"):
        list(documents.vectors())


@pytest.mark.parametrize("namespace", ["", "tenant"])
@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", [None, 7, 0.5, "x", b"x"])
def test_a_row_with_a_value_lost_or_of_another_type_is_damaged(tmp_path, namespace, place, value):
    values = ("a", "text", "{}", b"\0\0\x80?")
    row = Row(3, namespace, *values, record_digest(3, *values, *([namespace] if namespace else [])))
    assert row.intact
    lost = Row(*row[:place], value, *row[place + 1 :])
    assert not lost.intact
    with pytest.raises(CorruptIndexError, match="is damaged"):
        lost.check(tmp_path)
