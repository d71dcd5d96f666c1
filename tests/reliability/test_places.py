"""The index without asserts, across a fork, without disk space, and opened from every older format."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.toy import StretchEmbedder, ToyEmbedder
from tp_retrieval import Document, Index, IndexAccessError

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests/golden").glob("format-*"))


def child(code, *arguments, options=()):
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_without_asserts_a_short_vector_is_refused_all_the_same(tmp_path):
    """FAISS checks dimensions by `assert`, which `python -O` drops; it would then read beyond the vector's end."""
    code = """
import sys
import numpy as np
from tests.toy import ToyEmbedder
from tp_retrieval import Index, InputError
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex

assert False, "this line does nothing under -O"
with Index.create(sys.argv[1], ToyEmbedder()) as index:
    index.add(["one", "two"])
    short = np.ones((1, 15), dtype=np.float32)
    for call in (
        lambda: index.add(["three"], vectors=short),
        lambda: index.search_by_vector(short[0], 1),
        lambda: index._vectors._faiss.add(np.array([9]), short),
    ):
        try:
            call()
        except InputError as error:
            print(error)
    print(len(index))
"""
    done = child(code, tmp_path / "i", options=("-O",))
    assert done.stdout.splitlines() == [
        "vectors: shape (1, 15) must be (1, 16)",
        "vectors: shape (1, 15) must be (1, 16)",
        "vectors of shape (1, 15), expected (1, 16)",
        "2",
    ], done.stderr


FORK = """
import os, sys
import numpy as np
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

class Wide(ToyEmbedder):
    dimension = 256

rng = np.random.default_rng(0)
index = Index.create(sys.argv[1], Wide())
index.add([f"text {i}" for i in range(4000)], vectors=rng.standard_normal((4000, 256)).astype(np.float32))
if sys.argv[2] != "flat":
    index.rebuild(kind=sys.argv[2])
query = rng.standard_normal(256).astype(np.float32)
want = index.search_by_vector(query, 5)
child = os.fork()
if not child:
    same = index.search_by_vector(query, 5) == want
    index.add([Document("from the child", {}, "child")], vectors=rng.standard_normal((1, 256)).astype(np.float32))
    os._exit(0 if same else 3)
while not os.waitpid(child, os.WNOHANG)[0]:
    assert len(index.search_by_vector(query, 5)) == 5
assert index.search_by_vector(query, 5)[0].score >= want[0].score
assert len(index) == 4001 and index.get(["child"])
index.add(["from the parent"], vectors=rng.standard_normal((1, 256)).astype(np.float32))
assert index.verify().ok
print("both go on")
"""


@pytest.mark.parametrize("kind", ["flat", "HNSW32", "IVF64,Flat"])
def test_a_forked_child_searches_and_adds_after_its_parent_did(tmp_path, kind):
    """A forked child works. OpenMP's threads don't outlive a fork, and SQLite's connections must not cross it."""
    code = "import tp_retrieval.indexing.vectors.kinds as kinds; kinds.TRAIN_AT = 1000\n" + FORK
    done = child(code, tmp_path / "i", kind)
    assert done.stdout == "both go on\n", done.stderr


CHILD_OUTLIVES = """
import os, sys
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

index = Index.create(sys.argv[1], ToyEmbedder())
index.add([Document("zero", {}, "zero")])
closed, ready = os.pipe()
child = os.fork()
if not child:
    os.read(closed, 1)
    index.add([Document("from the child", {}, "child")])
    os._exit(0)
index.close()
os.write(ready, b"x")
os.waitpid(child, 0)
print([document.id for document in Index.open(sys.argv[1], ToyEmbedder())])
"""


def test_what_a_forked_child_adds_after_its_parent_closed_is_kept(tmp_path):
    done = child(CHILD_OUTLIVES, tmp_path / "i")
    assert done.stdout == "['zero', 'child']\n", done.stderr


def test_a_full_place_is_one_error_and_what_was_there_still_opens(tmp_path):
    """A limit on the size of files stands in for the full disk."""
    folder = tmp_path / "i"
    with Index.create(folder, ToyEmbedder()) as index:
        index.add([Document(f"text {i}", {}, f"id{i}") for i in range(20)])
    code = """
import resource, signal, sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index, IndexAccessError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Index.open(sys.argv[1], ToyEmbedder()) as index:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    try:
        for i in range(100_000):
            index.add([f"more {i} " + "words " * 50 for _ in range(20)])
    except IndexAccessError as error:
        print("index.sqlite" in str(error), 20 + 20 * i, len(index), len(index.search("more", 5)))
"""
    done = child(code, folder)
    told, acknowledged, there, found = done.stdout.split()
    assert (told, acknowledged, found) == ("True", there, "5"), done.stderr
    with Index.open(folder, ToyEmbedder()) as index:
        assert len(index) == int(there) > 100
        assert index.verify().ok


def test_a_snapshot_without_room_is_left_out_and_told(tmp_path):
    code = """
import logging, resource, signal, sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index

logging.basicConfig(level=logging.WARNING)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
index = Index.create(sys.argv[1], ToyEmbedder())
index.add([f"text {i}" for i in range(2000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
index.close()
"""
    done = child(code, tmp_path / "i")
    assert done.returncode == 0, done.stderr
    assert "no snapshot of the vectors was written" in done.stderr
    assert not list((tmp_path / "i").glob("vectors*"))
    with Index.open(tmp_path / "i", ToyEmbedder()) as index:
        assert len(index.search("text", 3000, mode="dense")) == 2000


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/nothing/here"])
def test_a_place_that_can_not_be_is_named(tmp_path, path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(IndexAccessError, match="can't make"):
        Index.create(tmp_path / path, ToyEmbedder())
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda folder: folder.name)
def test_an_index_of_every_format_there_was_opens(tmp_path, golden):
    """The expected values were written when the golden index was made."""
    shutil.copytree(golden, tmp_path / "i")
    noted = json.loads((golden / "expected.json").read_text())
    (tmp_path / "i" / "expected.json").unlink()
    embedder = ToyEmbedder() if golden.name in ("format-1", "format-2") else StretchEmbedder()
    for _ in range(2):  # the second time in the present format
        with Index.open(tmp_path / "i", embedder) as index:
            assert [[d.id, d.text, d.metadata] for d in index] == noted["documents"]
            for query, mode, hits in noted["searches"]:
                found = [[hit.document.id, hit.score] for hit in index.search(query, 5, mode=mode)]
                assert [id_ for id_, _ in found] == [id_ for id_, _ in hits], (query, mode)
                assert np.allclose([s for _, s in found], [s for _, s in hits], atol=1e-5)
            assert [h.document.id for h in index.search("text", 3, where={"n": {"$gte": 75}})] == noted["filtered"]
            assert index.namespaces() == noted.get("namespaces", {"": len(index)})
            assert [h.document.text for h in index.search("cats", namespace="tenant")] == noted.get("of tenant", [])
            assert index.verify().ok
    with closing(sqlite3.connect(tmp_path / "i" / "index.sqlite")) as connection:
        (free,), (pages,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
    assert free <= 0.1 * pages, "the tables of the older format give their space back"


def test_there_is_a_golden_index_of_every_format():
    from tp_retrieval.indexing.storage.meta import FORMAT

    assert [folder.name for folder in GOLDEN] == [f"format-{i}" for i in range(1, FORMAT + 1)]


def test_a_seal_that_can_not_be_removed_is_one_error_and_nothing_is_written(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document("kept", {}, "kept")])
        seal = tmp_path / "i" / "index.sqlite.xxh128"
        seal.mkdir()
        with pytest.raises(IndexAccessError, match=r"can't remove .*index\.sqlite\.xxh128"):
            index.add(["another"])
        seal.rmdir()
        assert [document.id for document in index] == ["kept"]


def test_without_descriptors_an_index_is_neither_called_damaged_nor_opened_only_to_read(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add(["one", "two"])
    code = """
import os, resource, sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index

with Index.open(sys.argv[1], ToyEmbedder()) as index:
    index.search("one")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
while True:
    try:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
told = []
for _ in range(12):
    try:
        with Index.open(sys.argv[1], ToyEmbedder()) as index:
            told.append("open" if index._store.database.writable else "only to read")
    except Exception as error:
        told.append(type(error).__name__)
    os.close(taken.pop())
print(sorted(set(told)))
"""
    assert child(code, tmp_path / "i").stdout == "['IndexAccessError', 'open']\n"
