"""The meta table: one typed value, JSON records on disk, each with a digest."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError, InputError
from tp_retrieval.indexing.storage.fitted_maps import StoredMap
from tp_retrieval.indexing.storage.meta import FileSettings, IndexMeta, SnapshotRecord, Tuning, VectorSettings
from tp_retrieval.types import Provenance, VectorView


@pytest.fixture
def store(filled):
    return filled(["one", "two"])


def test_a_map_is_stored_as_little_endian_floats_and_read_back(store):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    with store.transaction():
        store.set_maps([StoredMap("whiten:3", 9, {"mean": matrix[0], "matrix": matrix}), StoredMap("none", 9, {})])
    first, second = store.maps.all()
    assert (first.postprocess, first.fitted_on, sorted(first.arrays)) == ("whiten:3", 9, ["matrix", "mean"])
    assert (first.arrays["matrix"] == matrix).all()
    assert (second.postprocess, dict(second.arrays)) == ("none", {})
    rows = store.database.execute("SELECT shape, data FROM map_arrays WHERE view = 0 AND name = 'matrix'")
    assert rows == [("[2, 3]", matrix.astype("<f4").tobytes())]


def test_new_maps_replace_all_and_count_a_generation(store):
    generation = store.meta.get("generation")
    for maps in ([StoredMap("none", 1, {}), StoredMap("none", 1, {})], [StoredMap("none", 2, {})]):
        with store.transaction():
            store.set_maps(maps)
    assert [stored.fitted_on for stored in store.maps.all()] == [2]
    assert store.meta.get("generation") == generation + 2


@pytest.mark.parametrize("sql", ["UPDATE map_arrays SET data = zeroblob(8)", "UPDATE maps SET fitted_on = 8"])
def test_a_damaged_map_is_named(store, sql):
    with store.transaction():
        store.set_maps([StoredMap("center", 9, {"mean": np.ones(2, dtype=np.float32)})])
    store.database.execute(sql)
    with pytest.raises(CorruptIndexError, match="map 0"):
        store.maps.all()


def test_a_damaged_meta_record_is_named(store):
    store.database.execute("UPDATE meta SET value = '5' WHERE key = 'generation'")
    assert ["meta record 'generation' is damaged" in line for line in store.meta.problems()] == [True]


PROVENANCE = Provenance("m", None, "r", "w", "float32", {"views": []}, (VectorView(3), VectorView(4, "center", 0.5)))
META = IndexMeta(
    dimension=7,
    fingerprint="f",
    views=(VectorView(3), VectorView(4, "center", 0.5)),
    vectors=VectorSettings("hnsw", 0.9, Tuning("HNSW32", 10, "efSearch=8", 2, 0.9, 0.95)),
    provenance=PROVENANCE,
    tokenizer="words",
    libraries={"numpy": "2"},
    generation=4,
    snapshot=SnapshotRecord("vectors-1.faiss", 1, "0a", 4, 9, 2),
    maps_tried=("none", "center"),
)


def test_what_is_written_is_read_back_and_lies_there_as_json(store):
    with store.transaction():
        store.meta.write(META)
    assert store.meta.read() == META
    stored = {name: json.loads(value) for name, value, _ in store.database.execute("SELECT * FROM meta")}
    assert stored["views"] == [asdict(view) for view in META.views]
    assert stored["vectors"]["tuning"] == asdict(META.vectors.tuning)
    assert stored["snapshot"]["last_seq"] == 9
    with store.transaction():
        store.meta.write(replace(META, snapshot=None, provenance=None, maps_tried=()))
    names = {name for (name,) in store.database.execute("SELECT key FROM meta")}
    assert names == {"format", *(field.name for field in fields(IndexMeta))} - {"snapshot", "maps_tried", "files"}
    assert store.meta.read() == replace(META, snapshot=None, provenance=None, maps_tried=())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimension", "7"),
        ("dimension", 8),
        ("generation", 1.5),
        ("generation", True),
        ("views", [{"width": 7, "postprocess": 3}]),
        ("views", []),
        ("views", [{"width": 9}, {"width": -2}]),
        ("vectors", {"kind": "flat"}),
        ("provenance", {"model": "m"}),
        ("provenance", asdict(PROVENANCE) | {"recipe": {"dense_weight": "most"}}),
    ],
)
def test_a_record_of_another_shape_is_named(store, name, value):
    with store.transaction():
        store.meta.write(META)
        store.meta.set(name, value)
    with pytest.raises(CorruptIndexError, match=rf"index\.sqlite: meta records? .*'{name}"):
        store.meta.read()
    assert [f"'{name}" in problem for problem in store.meta.problems()] == [True]


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [("snapshot", {"file": "vectors-1.faiss"}, None), ("maps_tried", "none", ()), ("libraries", [1], {})],
)
def test_a_damaged_record_that_an_index_works_without_counts_as_missing_and_is_named(store, name, value, default):
    with store.transaction():
        store.meta.write(META)
        store.meta.set(name, value)
    assert store.meta.read() == replace(META, **{name: default})
    assert [f"'{name}" in problem for problem in store.meta.problems()] == [True]
    store.database.execute("UPDATE meta SET digest = 'x' WHERE key = ?", (name,))
    assert store.meta.read() == replace(META, **{name: default})
    assert [f"'{name}' is damaged" in problem for problem in store.meta.problems()] == [True]


def test_a_missing_record_is_named_unless_an_index_works_without_it(store):
    with store.transaction():
        store.meta.write(META)
        for name in ("snapshot", "maps_tried", "libraries"):
            store.meta.remove(name)
    assert store.meta.read() == replace(META, snapshot=None, maps_tried=(), libraries={})
    with store.transaction():
        store.meta.remove("fingerprint")
    with pytest.raises(CorruptIndexError, match="meta record 'fingerprint' is misshapen"):
        store.meta.read()


def test_repair_removes_the_snapshots_record_and_damaged_ones_that_can_be_spared(store):
    with store.transaction():
        store.meta.write(META)
    store.database.execute("UPDATE meta SET digest = 'x' WHERE key IN ('libraries', 'snapshot')")
    with store.transaction():
        store.meta.remove_derived()
    assert store.meta.read() == replace(META, snapshot=None, libraries={})


@pytest.mark.parametrize("files", [FileSettings("/r\udce9"), FileSettings("/r", 1.5), FileSettings("/r", json_text=5)])
def test_what_could_not_be_read_again_is_not_written(store, files):
    with store.transaction():
        store.meta.write(META)
    with pytest.raises(InputError, match="the index can't keep this"), store.transaction():
        store.meta.write(replace(META, files=files))
    assert store.meta.read() == META
