"""The index in memory against numpy."""

import subprocess
import sys

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError, IndexAccessError, InputError
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex, read_all

SEQS = np.arange(1, 401, 2)


@pytest.fixture(scope="module")
def vectors():
    drawn = np.random.default_rng(0).standard_normal((200, 8))
    drawn[9] = drawn[4]
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def index(vectors):
    filled = FaissIndex(8, lambda seqs: pytest.fail("an exact index needs no rows"))
    filled.add(SEQS[:50], vectors[:50])
    filled.add(SEQS[50:], vectors[50:])
    return filled


def brute_force(vectors, query, k, among):
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).round(7)
    rows = [(int(seq), float(score)) for seq, score in zip(SEQS, scores, strict=True) if seq in among]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:k]


@pytest.mark.parametrize("k", [1, 7, 500])
@pytest.mark.parametrize("among", [None, SEQS[::3], SEQS[:0]], ids=["all", "a third", "none"])
def test_search_is_brute_force_with_ties_in_order(index, vectors, k, among):
    for query in vectors[[0, 4, 9]]:
        rows = set(SEQS.tolist() if among is None else among.tolist())
        assert index.search(query, k, among) == brute_force(vectors, query, k, rows)


def test_removed_rows_are_passed_over_until_a_fifth_is_dead(index, vectors):
    index.remove(np.array([1, 3, 2, 9999]))
    assert len(index) == 198
    assert index.seqs.tolist() == SEQS[2:].tolist()
    assert index.search(vectors[0], 5) == brute_force(vectors, vectors[0], 5, set(SEQS[2:].tolist()))
    index.remove(SEQS[:40])
    assert not index.crowded
    index.remove(SEQS[40:41])
    assert index.crowded
    index.empty()
    assert (len(index), index.search(vectors[0], 5)) == (0, [])


def test_rows_and_scores_are_those_that_were_added(index, vectors):
    assert (index.rows(np.array([399, 1])) == vectors[[199, 0]]).all()
    assert index.rows(SEQS[:0]).shape == (0, 8)
    want = vectors.astype(np.float64) @ vectors[3].astype(np.float64)
    assert index.scores(vectors[3], SEQS) == pytest.approx(want, abs=6e-8)
    assert index.scores(vectors[3], SEQS).max() <= 1.0
    with pytest.raises(CorruptIndexError, match="record 2 has no vector"):
        index.rows(np.array([1, 2]))


@pytest.mark.parametrize(
    ("seqs", "shape", "value", "words"),
    [
        ([500], (1, 7), 0.0, "expected"),
        ([500, 500], (2, 8), 0.0, "ascend"),
        ([399], (1, 8), 0.0, "ascend"),
        ([500], (1, 8), np.nan, "finite"),
    ],
)
def test_rows_that_can_not_be_added_change_nothing(index, seqs, shape, value, words):
    with pytest.raises(InputError, match=words):
        index.add(np.array(seqs), np.full(shape, value, dtype=np.float32))
    assert index.seqs.tolist() == SEQS.tolist()


def test_a_snapshot_holds_rows_and_numbers(index, vectors, tmp_path):
    index.write(tmp_path / "vectors-1.faiss")
    assert [file.name for file in tmp_path.iterdir()] == ["vectors-1.faiss"]
    again = FaissIndex.read(tmp_path / "vectors-1.faiss", 8, pytest.fail, None)
    assert again.seqs.tolist() == SEQS.tolist()
    assert (again.rows(SEQS) == vectors).all()
    assert FaissIndex.read(tmp_path / "vectors-1.faiss", 9, pytest.fail, None) is None


def test_what_is_no_snapshot_is_none_and_a_missing_folder_is_an_error(index, tmp_path):
    (tmp_path / "broken.faiss").write_bytes(b"IxMp" + b"\0" * 50)
    assert FaissIndex.read(tmp_path / "broken.faiss", 8, pytest.fail, None) is None
    assert FaissIndex.read(tmp_path / "missing.faiss", 8, pytest.fail, None) is None
    with pytest.raises(IndexAccessError, match="can't write"):
        index.write(tmp_path / "missing" / "vectors-1.faiss")
    with pytest.raises(InputError, match="no index whose vectors FAISS can read"):
        read_all(tmp_path / "broken.faiss")


def test_read_all_reads_a_file_with_row_numbers_and_never_ends_the_process(index, vectors, tmp_path):
    index.write(tmp_path / "vectors-1.faiss")
    code = (
        "import sys; from pathlib import Path; from tp_retrieval.indexing.vectors.faiss_index import read_all\n"
        "sys.stdout.buffer.write(read_all(Path(sys.argv[1])).tobytes())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "vectors-1.faiss")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, vectors.tobytes())
