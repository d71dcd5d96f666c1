"""Hostile bytes never execute and never crash; each is a clear error, in under a second and 300 MB.

The folders are made here, each by one function, so that one can read what is hostile about them.
"""

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index
from tp_retrieval.indexing.storage.store import Store

ROOT = Path(__file__).parents[2]
MEGABYTES, SECONDS = 300, 1.0
VICTIM = """
import json, sys, time
from tests.toy import ToyEmbedder
from tp_retrieval import Index, TPRetrievalError

begin = time.perf_counter()
try:
    with Index.open(sys.argv[1], ToyEmbedder()) as index:
        found = [hit.document.id for hit in index.search("green river", 5)]
except TPRetrievalError as error:
    found = f"{type(error).__name__}: {error}"
took = time.perf_counter() - begin
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([found, took, int(peak.split()[1]) / 1024]))
"""


@pytest.fixture
def folder(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document("green river", {"n": i}, f"id{i}") for i in range(8)])
    return tmp_path / "i"


def opened(folder):
    """Open and search in a process of its own, within bounds that a crash or a flood would break."""
    begin = [sys.executable, "-c", VICTIM, str(folder)]
    done = subprocess.run(begin, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    found, took, megabytes = json.loads(done.stdout)
    assert took < SECONDS
    assert megabytes < MEGABYTES
    return found


IDS = [f"id{i}" for i in range(5)]


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("name", ["index.sqlite", "vectors-1.faiss", "index.sqlite.xxh128", "index.pkl", "vectors-2.pkl"])
def test_a_pickle_in_the_place_of_any_file_is_never_loaded(folder, name):
    exploded = folder.parent / "exploded"
    (folder / name).write_bytes(pickle.dumps(Bomb(exploded)))
    found = opened(folder)
    if name.startswith("index.sqlite"):
        assert found.startswith("CorruptIndexError")
        assert "index.sqlite" in found
    else:
        assert found == IDS, "the snapshot is made again from the rows, a foreign file is passed over"
    assert not exploded.exists()


def altered(folder, *statements):
    """Change the database as an attacker would, who can seal it as well."""
    store = Store(folder)
    with store.transaction():
        for statement in statements:
            store.database.execute(*statement)
    store.close(checksum=True)


def snapshot(folder, data, **changes):
    """Put a snapshot whose digest the database vouches for."""
    (folder / "vectors-1.faiss").write_bytes(data)
    store = Store(folder)
    with store.transaction():
        known = store.meta.get("snapshot") | {"sha256": hashlib.sha256(data).hexdigest()} | changes
        store.meta.set("snapshot", known)
    store.close(checksum=True)


@pytest.mark.parametrize(
    "target", ["../../secret.faiss", "/etc/passwd", "vectors-1.faiss/../../secret.faiss", "index.sqlite"]
)
def test_a_manifest_that_names_another_path_is_not_followed(folder, target):
    secret = folder.parent.parent / "secret.faiss"
    secret.write_bytes((folder / "vectors-1.faiss").read_bytes())
    snapshot(folder, (folder / "vectors-1.faiss").read_bytes(), file=target)
    assert opened(folder) == IDS
    assert secret.exists(), "neither read nor cleaned away"
    assert (folder / "index.sqlite").exists()


def test_a_link_out_of_the_folder_is_not_followed(folder):
    outside = folder.parent / "outside.faiss"
    (folder / "vectors-1.faiss").rename(outside)
    before = outside.read_bytes()
    (folder / "vectors-1.faiss").symlink_to(outside)
    assert opened(folder) == IDS
    assert outside.read_bytes() == before
    (folder / "index.sqlite").rename(folder.parent / "outside.sqlite")
    (folder / "index.sqlite").symlink_to(folder.parent / "outside.sqlite")
    found = opened(folder)
    assert "IndexAccessError" in found
    assert "link out of its folder" in found


def flat(rows, declared):
    """A FAISS flat index of 16 numbers a row that declares more bytes than it has."""
    index = faiss.IndexFlatIP(16)
    index.add(np.ones((rows, 16), dtype=np.float32))
    data = faiss.serialize_index(index).tobytes()
    at = data.index(struct.pack("<Q", rows * 64 // 4))
    return data[:at] + struct.pack("<Q", declared // 4) + data[at + 8 :]


@pytest.mark.parametrize("declared", [10 * 2**30, 2**40, 2**62, 2**27])
def test_ten_gigabytes_declared_in_a_kilobyte_are_not_made_room_for(folder, declared):
    snapshot(folder, flat(8, declared))
    assert opened(folder) == IDS


@pytest.mark.parametrize("levels", [100, 200_000])
def test_an_index_within_an_index_without_end_does_not_crash(folder, levels):
    data = faiss.serialize_index(faiss.IndexIDMap(faiss.IndexFlatIP(16))).tobytes()
    head = data[: data.index(b"IxFI")]
    snapshot(folder, head * levels + data)
    assert opened(folder) == IDS


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_random_bytes_that_the_database_vouches_for_do_not_crash(folder, seed):
    data = bytearray((folder / "vectors-1.faiss").read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, 120, 4):
        data[at] = rng.integers(0, 256)
    snapshot(folder, bytes(data))
    found = opened(folder)
    assert set(found) <= {f"id{i}" for i in range(8)} or found.startswith("CorruptIndexError")


@pytest.mark.parametrize(
    "statements",
    [
        [
            "DROP TABLE maps",
            "CREATE VIEW maps AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
        ],
        ["CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM documents; END"],
        ["CREATE VIRTUAL TABLE more USING fts5(x)"],
        ["CREATE INDEX slow ON documents(length(hex(zeroblob(1000))))"],
        ["DROP TABLE facts"],
    ],
)
def test_tables_views_and_triggers_that_are_not_ours_are_refused_before_they_are_read(folder, statements):
    altered(folder, *((statement,) for statement in statements))
    found = opened(folder)
    assert "CorruptIndexError" in found
    assert "its tables are not those" in found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("views", [[[]]]),
        ("views", [{"width": -5}]),
        ("vectors", {"kind": "flat"}),
        ("vectors", {"kind": "flat", "target_recall": 1, "tuning": {"factory": 1}}),
        ("dimension", "many"),
        ("snapshot", 7),
        ("generation", None),
        ("tokenizer", "x' OR 1"),
        ("provenance", [1]),
    ],
)
def test_meta_records_of_another_shape_are_named(folder, key, value):
    store = Store(folder)
    with store.transaction():
        store.meta.set(key, value)
    store.close(checksum=True)
    found = opened(folder)
    assert found == IDS or (found.startswith("CorruptIndexError") and "index.sqlite" in found), found


def test_deep_json_is_an_error_not_a_crash(folder):
    from tp_retrieval.sqlite.digest import record_digest

    deep = "[" * 100_000 + "]" * 100_000
    altered(
        folder,
        ("UPDATE meta SET value = ?, digest = ? WHERE key = 'views'", (deep, record_digest("views", deep))),
    )
    assert opened(folder).startswith("CorruptIndexError")
    row = (1, "id0", "green river", '{"a":' + deep + "}", b"\0" * 64)
    altered(
        folder,
        ("UPDATE meta SET value = ?, digest = ? WHERE key = 'views'", (w := '[{"width": 16}]', record_digest("views", w))),
        ("UPDATE documents SET metadata = ?, vector = ?, digest = ? WHERE seq = 1", (row[3], row[4], record_digest(*row))),
    )
    assert opened(folder).startswith("CorruptIndexError")


def test_a_file_of_another_kind_is_no_index(folder):
    for data in (b"", b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000, b"PK\x03\x04" * 1000):
        (folder / "index.sqlite").write_bytes(data)
        (folder / "index.sqlite.xxh128").unlink(missing_ok=True)
        found = opened(folder)
        assert found.split(":")[0] in ("CorruptIndexError", "IndexNotFoundError", "IndexAccessError"), found


def test_the_bounds_bite(folder, monkeypatch):
    """The harness notices a flood, a crash and a delay."""
    for line in ("x = bytearray(400 << 20)", "import os; os.abort()", "time.sleep(1.1)"):
        monkeypatch.setattr(sys.modules[__name__], "VICTIM", VICTIM.replace("try:", f"{line}\ntry:", 1))
        with pytest.raises(AssertionError):
            opened(folder)
