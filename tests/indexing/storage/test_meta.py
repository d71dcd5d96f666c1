"""Meta records and maps: JSON and arrays on disk, each with a digest."""

import hashlib

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError
from tp_retrieval.indexing.storage.meta import StoredMap, digest_of


@pytest.fixture
def store(filled):
    return filled(["one", "two"])


def test_the_digest_is_sha256_of_each_value_after_its_length():
    want = hashlib.sha256((2).to_bytes(8, "little") + b"ab" + (2).to_bytes(8, "little") + b"17").digest()
    assert digest_of("ab", 17) == digest_of(b"ab", "17") == want
    assert digest_of("a", "b17") != want


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
