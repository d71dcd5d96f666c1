"""The snapshot file: its record, its numbers, and the files it leaves alone."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from tp_retrieval.indexing.storage.meta import IndexMeta, SnapshotRecord, VectorSettings
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.snapshot import Moment, Snapshot
from tp_retrieval.types import VectorView

MOMENT = Moment(generation=0, last_seq=29, deletion=4)
SEQS = np.arange(1, 31, 2)


@pytest.fixture
def store(tmp_path):
    meta = IndexMeta(4, "f", (VectorView(4),), VectorSettings("flat", 0.9), None, "words")
    created = Store.create(tmp_path, meta)
    yield created
    created.close()


@pytest.fixture
def snapshot(tmp_path, store):
    return Snapshot(tmp_path, store.meta)


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(0).standard_normal((len(SEQS), 4)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def index(vectors):
    filled = FaissIndex(4, pytest.fail)
    filled.add(SEQS, vectors)
    return filled


@pytest.fixture
def write(store, snapshot, index):
    """Return a function that writes the index as the snapshot in a transaction of its own."""

    def written(moment=MOMENT):
        with store.transaction():
            return snapshot.write(index, moment)

    return written


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("vectors-"))


def read(snapshot, generation=0, dimension=4):
    return snapshot.read(generation, dimension, pytest.fail, None)


def test_record_and_file_agree(tmp_path, store, snapshot, write, vectors):
    assert write() is None
    content = (tmp_path / "vectors-1.faiss").read_bytes()
    record = SnapshotRecord("vectors-1.faiss", 1, hashlib.sha256(content).hexdigest(), 0, 29, 4)
    assert store.meta.read().snapshot == record
    loaded, moment = read(snapshot)
    assert moment == MOMENT
    assert loaded.seqs.tolist() == SEQS.tolist()
    assert (loaded.rows(SEQS) == vectors).all()
    assert (snapshot.size(), list(snapshot.problems())) == (len(content), [])


def test_without_a_record_there_is_nothing_to_read(tmp_path, snapshot, index):
    index.write(tmp_path / "vectors-1.faiss")
    assert (read(snapshot), snapshot.size(), list(snapshot.problems())) == (None, 0, [])


def test_the_previous_file_stays_until_the_transaction_is_over(tmp_path, store, snapshot, index, write):
    write()
    with store.transaction():
        previous = snapshot.write(index, replace(MOMENT, last_seq=31))
        assert names(tmp_path) == ["vectors-1.faiss", "vectors-2.faiss"]
    assert previous == "vectors-1.faiss"
    assert names(tmp_path) == ["vectors-1.faiss", "vectors-2.faiss"]
    snapshot.remove(previous)
    assert names(tmp_path) == ["vectors-2.faiss"]
    assert read(snapshot)[1].last_seq == 31


def test_a_transaction_that_is_rolled_back_leaves_the_previous_snapshot(tmp_path, store, snapshot, index, write):
    write()

    def interrupted():
        with store.transaction():
            snapshot.write(index, replace(MOMENT, last_seq=31))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(snapshot)[1] == MOMENT
    assert write() == "vectors-1.faiss"
    assert store.meta.read().snapshot.file == "vectors-3.faiss"
    assert names(tmp_path) == ["vectors-1.faiss", "vectors-3.faiss"]
    write()
    assert names(tmp_path) == ["vectors-3.faiss", "vectors-4.faiss"]


def test_numbers_of_files_that_are_there_are_passed_over(tmp_path, store, write):
    (tmp_path / "vectors-1.faiss").write_text("a letter")
    (tmp_path / "vectors-2.tmp").mkdir()
    (tmp_path / "vectors-3.faiss").symlink_to(tmp_path / "missing")
    write()
    assert (store.meta.read().snapshot.number, store.meta.read().snapshot.file) == (4, "vectors-4.faiss")
    assert (tmp_path / "vectors-1.faiss").read_text() == "a letter"
    assert names(tmp_path) == ["vectors-1.faiss", "vectors-2.tmp", "vectors-3.faiss", "vectors-4.faiss"]


def test_leftovers_of_killed_processes_are_removed_and_files_of_others_are_not(tmp_path, store, snapshot, index, write):
    with store.transaction():
        store.meta.write(replace(store.meta.read(), snapshot=SnapshotRecord("vectors-8.faiss", 8, "0a", 0, 1, 0)))
    for name in ("vectors-8", "vectors-2", "vectors-70", "vectors-3x", "vectors-old"):
        index.write(tmp_path / f"{name}.faiss")
    (tmp_path / "vectors-5.tmp").write_bytes(b"IxMp cut short")
    (tmp_path / "vectors-4.faiss").write_bytes(b"IxFI of somebody")
    (tmp_path / "letter").write_bytes(b"IxMp")
    (tmp_path / "vectors-6.faiss").symlink_to(tmp_path / "letter")
    (tmp_path / "vectors-7.faiss").mkdir()
    before = names(tmp_path)
    assert write() == "vectors-8.faiss"
    assert set(before) - set(names(tmp_path)) == {"vectors-2.faiss", "vectors-5.tmp"}
    assert set(names(tmp_path)) - set(before) == {"vectors-9.faiss"}
    for name in ("vectors-4.faiss", "vectors-6.faiss", "vectors-7.faiss", "letter", "../letter", None):
        snapshot.remove(name)
    assert set(before) - set(names(tmp_path)) == {"vectors-2.faiss", "vectors-5.tmp"}
    assert (tmp_path / "letter").read_bytes() == b"IxMp"


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # in the vectors, which FAISS reads without complaint
    file.write_bytes(content)


def link(file):
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "a bit flipped": flip_a_bit,
    "a link": link,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_not_read_and_is_a_problem(tmp_path, snapshot, write, damage):
    write()
    damage(tmp_path / "vectors-1.faiss")
    assert read(snapshot) is None
    (problem,) = snapshot.problems()
    assert problem.startswith(f"{tmp_path / 'vectors-1.faiss'}: the snapshot is missing or damaged")


def test_a_snapshot_of_another_generation_or_dimension_is_not_read(snapshot, write):
    write(replace(MOMENT, generation=3))
    assert read(snapshot, generation=3) is not None
    assert read(snapshot, generation=4) is None
    assert read(snapshot, generation=3, dimension=5) is None


@pytest.mark.parametrize("name", ["../vectors-1.faiss", "other.faiss", "vectors-1.faiss.faiss"])
def test_a_record_that_names_no_snapshot_opens_no_file(tmp_path, store, snapshot, index, write, name):
    write()
    folder = tmp_path / "folder"
    folder.mkdir()
    index.write(folder / name)
    with store.transaction():
        meta = store.meta.read()
        store.meta.write(replace(meta, snapshot=replace(meta.snapshot, file=name)))
    inner = Snapshot(folder, store.meta)
    assert (read(inner), inner.size(), len(list(inner.problems()))) == (None, 0, 1)
    inner.remove(name)
    assert (folder / name).is_file()
