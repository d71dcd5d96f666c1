"""The vectors in memory follow the store: against a dict of raw vectors by row number."""

from dataclasses import replace

import numpy as np
import pytest

from tp_retrieval import InputError
from tp_retrieval.indexing.storage.documents import PreparedDocument
from tp_retrieval.indexing.storage.meta import IndexMeta, VectorSettings
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.fitting import fit
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import VectorView

DIMENSION = 8
IVF = VectorSettings("IVF8,Flat", 0.8)


class Process:
    """A connection to an index with vectors of its own, as another process has; it records the rows that are mapped."""

    def __init__(self, folder, store=None):
        self.store = store or Store(folder)
        self.vectors = SyncedVectors(folder, self.store)
        self.mapped = []
        mapped = self.vectors.mapped
        self.vectors.mapped = lambda raw: (self.mapped.append(len(raw)), mapped(raw))[1]

    def add(self, raw):
        with self.store.transaction():
            last = self.store.documents.seqs()[-1:].sum()
            return self.store.insert([PreparedDocument(f"{last}-{i}", "t", {}, "{}") for i in range(len(raw))], raw)

    def delete(self, seqs):
        with self.store.transaction():
            assert self.store.delete(np.array(seqs)) == len(seqs)


@pytest.fixture
def processes(tmp_path):
    """Return a function that opens the index as another process."""
    meta = IndexMeta(DIMENSION, "f", (VectorView(DIMENSION, "center"),), VectorSettings("flat", 0.8), None, "words")
    made = [Process(tmp_path, Store.create(tmp_path, meta))]

    def another():
        made.append(Process(tmp_path))
        return made[-1]

    made[0].vectors.load()
    another.first = made[0]
    yield another
    for process in made:
        process.store.close()


@pytest.fixture
def first(processes):
    return processes.first


def drawn(count, seed=0):
    return (np.random.default_rng(seed).standard_normal((count, DIMENSION)) + 1).astype(np.float32)


def by_seq(seqs, raw):
    return dict(zip(seqs.tolist(), raw, strict=True))


def unit(vectors):
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


def check(vectors, rows, mean=0.0):
    """Compare numbers, vectors and a search with the rows that a dict holds."""
    seqs = np.array(sorted(rows), dtype=np.int64)
    want = unit(np.array([rows[seq] for seq in seqs.tolist()]) - mean)
    assert (len(vectors), vectors.seqs.tolist()) == (len(rows), seqs.tolist())
    assert vectors.rows(seqs) == pytest.approx(want, abs=1e-5)
    query = unit(drawn(1, seed=9))[0].astype(np.float32)
    best = np.argsort(-(want @ query))[:5]
    assert vectors.search(query[None], 5)[0] == [(seqs[i], pytest.approx(want[i] @ query, abs=1e-5)) for i in best]


def follow(process):
    """Refresh after a change of this process."""
    process.vectors.fall_behind()
    process.vectors.refresh()


def test_loading_a_snapshot_equals_loading_the_rows(processes, first):
    rows = by_seq(first.add(drawn(60)), drawn(60))
    follow(first)
    gone = [3, 4, 60]
    first.delete(gone)
    follow(first)
    rows = {seq: raw for seq, raw in rows.items() if seq not in gone}
    first.vectors.save(at_least=1)
    snapshot, from_rows = processes(), processes()
    snapshot.vectors.load()
    from_rows.vectors.load(from_rows=True)
    assert (snapshot.mapped, from_rows.mapped) == ([], [57])
    check(snapshot.vectors, rows)
    check(from_rows.vectors, rows)
    assert [list(process.vectors.problems()) for process in (snapshot, from_rows)] == [[], []]


def test_changes_of_another_process_are_replayed_one_by_one_and_after_a_snapshot(processes, first):
    other, rng, rows = processes(), np.random.default_rng(1), {}
    other.vectors.load()
    for step in range(12):
        raw = drawn(20, seed=step)
        rows |= by_seq(other.add(raw), raw)
        gone = rng.choice(sorted(rows), 2, replace=False).tolist()
        other.delete(gone)
        rows = {seq: raw for seq, raw in rows.items() if seq not in gone}
        first.vectors.refresh()
        check(first.vectors, rows)
        if step == 9:
            first.vectors.save(at_least=1)
    assert first.mapped[-1] == 20
    late = processes()
    late.vectors.load()
    check(late.vectors, rows)
    assert sum(late.mapped) == sum(seq > 200 for seq in rows)
    follow(other)
    check(other.vectors, rows)


def test_new_maps_of_another_process_change_every_vector(processes, first):
    raw, other = drawn(50), processes()
    rows = by_seq(first.add(raw), raw)
    follow(first)
    check(first.vectors, rows)
    digest, prepared = first.vectors.maps_digest(), first.vectors.prepare(np.array([51]), raw[:1])
    assert prepared.vectors == pytest.approx(unit(raw[:1]), abs=1e-6)
    more = drawn(50, seed=1)
    rows |= by_seq(other.add(more), more)
    with other.store.transaction():
        fit(other.store)
    assert first.vectors.prepare(np.array([101]), raw[:1]) is None
    first.vectors.save(at_least=1)
    assert first.store.meta.read().snapshot is None
    first.vectors.refresh()
    check(first.vectors, rows, mean=np.concatenate([raw, more]).mean(axis=0))
    assert first.vectors.maps_digest() != digest


def test_prepared_rows_are_taken_in_without_being_mapped_again(processes, first):
    raw = drawn(2500)
    prepared = first.vectors.prepare(np.arange(1, 2501), raw)
    assert prepared.vectors == pytest.approx(unit(raw), abs=1e-6)
    assert first.mapped == [1024, 1024, 452]
    first.vectors.fall_behind()
    rows = by_seq(first.add(raw), raw)
    first.vectors.refresh(prepared)
    check(first.vectors, rows)
    assert len(first.mapped) == 3
    with pytest.raises(InputError, match="not finite"):
        first.vectors.prepare(np.array([2501]), np.full((1, DIMENSION), np.nan, dtype=np.float32))


def test_prepared_rows_that_are_not_the_next_ones_come_from_the_store(processes, first):
    other, raw = processes(), drawn(30)
    rows = by_seq(other.add(raw[:10]), raw[:10])
    prepared = first.vectors.prepare(np.arange(11, 31), raw[10:])
    rows |= by_seq(first.add(raw[10:]), raw[10:])
    first.vectors.fall_behind()
    first.vectors.refresh(prepared)
    check(first.vectors, rows)


def test_prepared_rows_of_which_another_process_deleted_one_come_from_the_store(processes, first):
    other, raw = processes(), drawn(30)
    prepared = first.vectors.prepare(np.arange(1, 31), raw)
    rows = by_seq(first.add(raw), raw)
    other.delete([4])
    del rows[4]
    first.vectors.refresh(prepared)
    check(first.vectors, rows)


def test_discarded_vectors_are_neither_saved_nor_added_to_but_loaded_anew(first):
    raw = drawn(40)
    rows = by_seq(first.add(raw), raw)
    follow(first)
    first.vectors.discard()
    first.vectors.fall_behind()
    first.vectors.save(at_least=1)
    assert first.store.meta.read().snapshot is None
    assert first.vectors.prepare(np.array([41]), raw[:1]) is None
    first.mapped.clear()
    first.vectors.refresh()
    assert first.mapped == [40]
    check(first.vectors, rows)
    first.vectors.refresh()
    assert first.mapped == [40]


def test_vectors_are_compacted_when_more_than_a_fifth_are_tombstones(processes, first):
    raw = drawn(100)
    rows = by_seq(first.add(raw), raw)
    follow(first)
    first.mapped.clear()
    for count, mapped, size in [(20, [], 100), (1, [79], 79)]:
        gone = sorted(rows)[:count]
        first.delete(gone)
        rows = {seq: vector for seq, vector in rows.items() if seq not in gone}
        follow(first)
        assert first.mapped == mapped
        first.vectors.save(at_least=1)
        snapshot = first.store.meta.read().snapshot
        read = FaissIndex.read(first.store.file.parent / snapshot.file, DIMENSION, pytest.fail, None)
        assert (len(read), snapshot.deletion) == (size, 100 - size)
        late = processes()
        late.vectors.load()
        assert late.mapped == []
        for process in (first, late):
            check(process.vectors, rows)


def test_a_snapshot_of_other_rows_is_replaced_by_the_rows(processes, first):
    rows = by_seq(first.add(drawn(40)), drawn(40))
    follow(first)
    first.vectors.save(at_least=1)
    rows |= by_seq(first.add(drawn(10, seed=1)), drawn(10, seed=1))
    assert list(first.vectors.problems()) == [f"{first.store.file}: the vectors are not those of the stored rows"]
    with first.store.transaction():
        meta = first.store.meta.read()
        first.store.meta.write(replace(meta, snapshot=replace(meta.snapshot, last_seq=50)))
    late = processes()
    late.vectors.load()
    check(late.vectors, rows)
    assert late.mapped == [50]


def test_a_snapshot_is_written_only_when_enough_rows_changed(first):
    first.add(drawn(30))
    follow(first)
    first.vectors.save()
    first.vectors.save(at_least=31)
    assert (first.store.meta.read().snapshot, first.vectors.size()) == (None, 0)
    first.vectors.save(at_least=30)
    assert first.store.meta.read().snapshot.last_seq == 30
    first.vectors.save(at_least=0)
    assert first.store.meta.read().snapshot.number == 1
    first.delete([7])
    follow(first)
    first.vectors.save(at_least=1)
    assert first.store.meta.read().snapshot.number == 2
    (file,) = first.store.file.parent.glob("vectors-*")
    assert (file.name, file.stat().st_size) == ("vectors-2.faiss", first.vectors.size())


def test_a_built_index_and_its_tuning_are_kept(processes, first, monkeypatch):
    other, raw = processes(), drawn(600)
    other.vectors.load()
    rows = by_seq(first.add(raw), raw)
    follow(first)
    with first.store.transaction():
        first.store.meta.write(replace(first.store.meta.read(), vectors=IVF))
    first.vectors.build(first.vectors.plan("IVF8,Flat", IVF, first.vectors.seqs))
    meta = first.store.meta.read()
    assert (meta.generation, meta.snapshot.generation, meta.snapshot.last_seq) == (1, 1, 600)
    assert meta.vectors == replace(IVF, tuning=first.vectors.tuning)
    assert (meta.vectors.tuning.factory, meta.vectors.tuning.trained_on) == ("IVF8,Flat", 600)
    monkeypatch.setattr(FaissIndex, "build", lambda *_: pytest.fail("it is built already"))
    gone = list(range(1, 125))
    first.delete(gone)
    rows = {seq: vector for seq, vector in rows.items() if seq not in gone}
    first.mapped.clear()
    follow(first)
    assert first.mapped == [476]
    other.vectors.refresh()
    late = processes()
    late.vectors.load()
    for process in (first, other, late):
        assert process.vectors.tuning == meta.vectors.tuning
        seqs = process.vectors.seqs
        assert seqs.tolist() == sorted(rows)
        assert process.vectors.rows(seqs) == pytest.approx(unit(np.array([rows[seq] for seq in seqs])), abs=1e-5)


@pytest.mark.parametrize(("train_at", "built"), [(600, True), (601, False)])
def test_a_built_index_whose_snapshot_is_missing_is_built_again_if_there_are_rows_enough(
    processes, first, monkeypatch, train_at, built
):
    rows = by_seq(first.add(drawn(600)), drawn(600))
    follow(first)
    with first.store.transaction():
        first.store.meta.write(replace(first.store.meta.read(), vectors=IVF))
    first.vectors.build(first.vectors.plan("IVF8,Flat", IVF, first.vectors.seqs))
    (first.store.file.parent / "vectors-1.faiss").unlink()
    monkeypatch.setattr(kinds, "TRAIN_AT", train_at)
    late = processes()
    late.vectors.load()
    assert (late.vectors.tuning is not None) == built
    assert late.vectors.seqs.tolist() == sorted(rows)
    if not built:
        check(late.vectors, rows)


def test_a_build_for_settings_that_were_changed_meanwhile_is_dropped(first):
    rows = by_seq(first.add(drawn(600)), drawn(600))
    follow(first)
    before = first.store.meta.read()
    first.vectors.build(first.vectors.plan("IVF8,Flat", IVF, first.vectors.seqs))
    assert first.store.meta.read() == before
    assert not list(first.store.file.parent.glob("vectors-*"))
    first.vectors.refresh()
    assert first.vectors.tuning is None
    check(first.vectors, rows)
