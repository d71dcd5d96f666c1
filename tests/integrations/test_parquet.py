"""Parquet shards: read exactly as they were written, or refused naming the file and, where possible, the row."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tp_retrieval import Document, InputError
from tp_retrieval.integrations import parquet

MADE = parquet.ShardOrigin(
    "2:" + "a" * 32, 16, "model", None, "float32", {"query": ["q: {text}"], "document": ["d: {text}"]}
)


@pytest.fixture
def shard():
    metadata = [{"n": i, "tags": ["a", f"t{i % 4}"]} for i in range(60)]
    documents = [Document(f"Passage {i} about {'cats' if i % 3 else 'dogs'}", metadata[i], f"d{i}") for i in range(60)]
    return parquet.Shard(documents, np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32), MADE)


@pytest.fixture
def file(tmp_path, shard):
    parquet.write_shard(tmp_path / "a.parquet", shard)
    return tmp_path / "a.parquet"


def without_checksums(file):
    """Write a shard again as earlier versions wrote it."""
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"tp_retrieval": table.schema.metadata[b"tp_retrieval"]}), file)


def damaged(data, chance):
    """Return a file's bytes with flipped bits, without its end or a stretch within, or with two stretches swapped."""
    data = bytearray(data)
    place, width = chance.randrange(len(data)), chance.choice([16, 64, 512])
    match chance.choice(["flip", "flip", "end", "hole", "swap"]):
        case "flip":
            for _ in range(chance.choice([1, 1, 3])):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "end":
            del data[place:]
        case "hole":
            del data[place : place + width]
        case "swap":
            first, second = sorted(chance.randrange(len(data) - width) for _ in range(2))
            data[first : first + width], data[second : second + width] = (
                data[second : second + width],
                data[first : first + width],
            )
    return bytes(data)


def outcomes(file, shard):
    """Return how many of 300 damages were refused, read as it was written, and passed in silence."""
    data, counts, chance = file.read_bytes(), {"refused": 0, "same": 0, "silent": 0}, random.Random(19)
    for _ in range(300):
        file.write_bytes(damaged(data, chance))
        try:
            (read,) = parquet.read_shards(file.parent)
        except InputError as error:
            counts["refused"] += str(error).startswith(str(file))
            continue
        same = (read.documents, read.made) == (shard.documents, shard.made) and np.array_equal(read.vectors, shard.vectors)
        counts["same" if same else "silent"] += 1
    return counts


def test_of_300_damages_each_is_refused_or_changes_nothing(file, shard):
    counts = outcomes(file, shard)
    assert counts["silent"] == 0
    assert counts["refused"] + counts["same"] == 300
    assert counts["refused"] > 250


def test_without_checksums_the_same_damages_pass_in_silence(file, shard):
    without_checksums(file)
    assert outcomes(file, shard)["silent"] > 10


def test_a_shard_of_an_earlier_version_is_read(file, shard):
    without_checksums(file)
    (read,) = parquet.read_shards(file.parent)
    assert (read.documents, read.made) == (shard.documents, shard.made)
    assert np.array_equal(read.vectors, shard.vectors)


def test_an_empty_shard_is_read(tmp_path):
    parquet.write_shard(tmp_path / "a.parquet", parquet.Shard([], np.zeros((0, 16), dtype=np.float32), MADE))
    (read,) = parquet.read_shards(tmp_path)
    assert (read.documents, read.vectors.shape) == ([], (0, 16))


def strings(value):
    return lambda column: pa.array([*column.to_pylist()[:7], value, *column.to_pylist()[8:]], column.type)


def vectors(value):
    kind = pa.list_(pa.float32(), 16)
    return lambda column: pa.array([*column.to_pylist()[:7], value, *column.to_pylist()[8:]], kind)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("id", strings(None), "row 7: id must be a string, not NoneType"),
        ("text", strings(None), "row 7: text must be a string, not NoneType"),
        ("metadata", strings(None), "row 7: metadata must be JSON text, not NoneType"),
        ("metadata", strings("{"), "row 7: metadata is no JSON"),
        ("metadata", strings("[1]"), "row 7: metadata must be a JSON object, not list"),
        ("metadata", strings("5"), "row 7: metadata must be a JSON object, not int"),
        ("fingerprint", strings("2:b"), "row 7: made by another embedder (2:b) than its file says (2:aaa"),
        ("vector", vectors(None), "row 7: its vector is null"),
        ("vector", vectors([None] + [1.0] * 15), "row 7: its vector is null, NaN or infinite in some number"),
        ("vector", vectors([1.0] * 15 + [np.nan]), "row 7: its vector is null, NaN or infinite in some number"),
        ("vector", vectors([np.inf] * 16), "row 7: its vector is null, NaN or infinite in some number"),
        ("vector", lambda column: pa.array([[1.0] * 15] * 60), "its schema says 16 float32 each"),
        ("id", lambda column: pa.array(range(60)), "row 0: id must be a string, not int"),
        ("text", strings("another text"), "is damaged (digest stored"),
    ],
)
def test_a_wrong_value_is_named_by_file_and_row(file, name, change, message):
    table = pq.read_table(file)
    changed = table.set_column(table.schema.get_field_index(name), name, change(table[name].combine_chunks()))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(InputError) as error:
        list(parquet.read_shards(file.parent))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_another_recipe_in_the_schema_is_noticed(file):
    table = pq.read_table(file)
    changed = json.dumps(vars(MADE) | {"recipe": {"query": ["other"]}}).encode()
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"tp_retrieval": changed}), file)
    with pytest.raises(InputError, match="is damaged"):
        list(parquet.read_shards(file.parent))
