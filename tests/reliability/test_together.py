"""Threads get the results of a single thread; of two writers none is lost in silence; a killed one blocks no one."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, IndexExistsError, IndexLockedError, InputError
from tp_retrieval.indexing.verify import verify
from tp_retrieval.sqlite import database

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, name = sys.argv[1:]
with Index.open(folder, ToyEmbedder()) as index:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(50):
        index.add([Document(f"text {i} by {name}", {"by": name}, f"{name}-{i}")])
        assert index.search(f"text {i} by {name}", 100, mode="dense", where={"by": name})[-1].document
        print(i, flush=True)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_two_writing_processes_both_keep_everything(tmp_path):
    folder = tmp_path / "i"
    Index.create(folder, ToyEmbedder()).close()
    writers = [start(WRITER, folder, name) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    with Index.open(folder, ToyEmbedder()) as reader:
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        seen = 0
        while any(writer.poll() is None for writer in writers):
            count = len(reader.search("text", 200, mode="dense"))
            assert count >= seen, "a reader never goes back"
            seen = count
        for writer in writers:
            assert writer.communicate()[0].splitlines() == [str(i) for i in range(50)]
            assert writer.returncode == 0
        assert {d.id for d in reader} == {f"{name}-{i}" for name in ("one", "two") for i in range(50)}
    assert verify(folder).ok


LINGERS = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
index = Index.open(folder, ToyEmbedder())
print("open", flush=True)
sys.stdin.readline()
for i in range(count):
    index.add([Document(f"text {i} by {name}", {}, f"{name}-{i}")])
    print(i, flush=True)
sys.stdin.readline()
index.close()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_process_that_closes_takes_nothing_from_one_that_goes_on(tmp_path, killed):
    """Hashing the file must not drop SQLite's lock on it: the one that closes would delete the other's log."""
    folder = tmp_path / "i"
    Index.create(folder, ToyEmbedder()).close()
    short, long = start(LINGERS, folder, "short", 5), start(LINGERS, folder, "long", 40)
    for child in (short, long):
        assert child.stdout.readline() == "open\n"
    for child, count in ((short, 5), (long, 40)):
        child.stdin.write("go\n")
        child.stdin.flush()
        if child is short:
            short.communicate("close\n")
        else:
            assert [long.stdout.readline() for _ in range(count)] == [f"{i}\n" for i in range(count)]
    with Index.open(folder, ToyEmbedder()) as third:
        assert len(third) == 45
        third.add([Document(f"text {i} by third", {}, f"third-{i}") for i in range(20)])
        assert third.verify().ok
    if killed:
        long.kill()
    long.communicate("close\n" if not killed else None)
    with Index.open(folder, ToyEmbedder()) as index:
        assert len(index) == 65
        assert index.verify().ok


def test_a_build_that_another_process_overtook_is_not_published(tmp_path, monkeypatch):
    """A changes maps and kind while B trains on the old ones."""
    from tests.indexing.test_index import ToyWithProvenance
    from tp_retrieval.indexing.vectors import kinds
    from tp_retrieval.indexing.vectors.plan import Plan

    monkeypatch.setattr(kinds, "TRAIN_AT", 500)
    embedder = ToyWithProvenance("center")
    vectors = np.random.default_rng(0).normal(size=(1200, 16)).astype(np.float32) + 3
    texts = [Document(f"text {i}", {}, str(i)) for i in range(1200)]
    real = Plan.build
    with Index.create(tmp_path / "i", embedder, kind="ivf") as index:
        index.add(texts[:400], vectors=vectors[:400])

        def overtaken(self, *arguments, **options):
            built = real(self, *arguments, **options)
            with Index.open(tmp_path / "i", embedder) as other:
                other.rebuild(postprocess="none", kind="flat")
            overtakings.append(built.tuning.factory)
            return built

        overtakings = []
        monkeypatch.setattr(Plan, "build", overtaken)
        index.add(texts[400:], vectors=vectors[400:])
        index.wait_until_built()
        assert overtakings == ["IVF23,Flat"]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for opened in (index, Index.open(tmp_path / "i", embedder)):
            hits = opened.search_by_vector(vectors[7], 5)
            assert [hit.score for hit in hits] == pytest.approx(np.sort(unit @ unit[7])[::-1][:5], abs=1e-5)
            assert (opened.info().kind, opened.info().tuning, opened.info().fitted) == ("flat", None, ("none",))
            assert opened.verify().ok
        opened.close()


@pytest.mark.parametrize("work", ["transaction", "snapshot"])
def test_an_interrupt_right_after_begin_leaves_no_transaction_open(tmp_path, work):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        connection = index._store.database._connection

        class Interrupted:
            def execute(self, sql, *values):
                found = connection.execute(sql, *values)
                if sql.startswith("BEGIN"):
                    raise KeyboardInterrupt
                return found

            def __getattr__(self, name):
                return getattr(connection, name)

        index._store.database._connection = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            index.add(["one"]) if work == "transaction" else index.search("one")
        index._store.database._connection = connection
        index.add(["two"])
        assert len(index) == 1


def test_an_open_that_another_process_writes_into_is_not_taken_for_damage(tmp_path, monkeypatch):
    from tp_retrieval.sqlite.file_checksum import FileChecksum

    folder = tmp_path / "i"
    Index.create(folder, ToyEmbedder()).close()
    real, written = FileChecksum._line, []

    def meanwhile(self):
        if not written:
            written.append(subprocess.run([sys.executable, "-c", WRITES_ONCE, str(folder)], cwd=ROOT, check=True))
        return real(self)

    monkeypatch.setattr(FileChecksum, "_line", meanwhile)
    with Index.open(folder, ToyEmbedder()) as index:
        assert len(index) == 1
        with pytest.raises(IndexExistsError):
            Index.create(folder, ToyEmbedder())
    assert FileChecksum(folder / "index.sqlite", None).exists(), "a refused create takes no seal away"


WRITES_ONCE = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index
with Index.open(sys.argv[1], ToyEmbedder()) as index:
    index.add(["written meanwhile"])
"""


def test_a_writer_that_waits_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    with Index.create(tmp_path / "i", ToyEmbedder()) as index, Index.open(tmp_path / "i", ToyEmbedder()) as other:
        with index._store.transaction():
            with pytest.raises(IndexLockedError, match="another process is writing"):
                other.add(["text"])
            assert len(other.search("text")) == 0, "readers are not kept waiting"
        other.add(["text"])
        assert len(index.search("text")) == 1


def test_a_killed_holder_does_not_block(tmp_path):
    folder = tmp_path / "i"
    Index.create(folder, ToyEmbedder()).close()
    code = """
import sys, time
from tests.toy import ToyEmbedder
from tp_retrieval import Index
index = Index.open(sys.argv[1], ToyEmbedder())
with index._store.transaction():
    index._store.meta.set("libraries", {})
    print("held", flush=True)
    time.sleep(60)
"""
    holder = start(code, folder)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    with Index.open(folder, ToyEmbedder()) as index:
        index.add(["text"])
        assert len(index) == 1
        assert index.info().libraries != {}, "what was not committed is gone"


def look(index, number):
    """Search in one of the ways, and check that what comes back is of one moment."""
    mode = ("dense", "lexical", "hybrid")[number % 3]
    hits = index.search(f"river {number % 50}", 20, mode=mode, where={"batch": {"$gte": 0}} if number % 2 else None)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.document.id for hit in hits}) == len(hits)
    for batch in {hit.document.metadata["batch"] for hit in hits}:
        assert len(index.get([f"{batch}-0", f"{batch}-9"])) in (0, 2), "a batch is there wholly or not at all"


def add_and_search(folder, seconds, searchers=3):
    """Let one thread add and delete while others search, and return how often each did."""
    end = time.monotonic() + seconds
    failures, counts = [], [0] * (searchers + 1)
    index = Index.create(folder, ToyEmbedder())

    def guarded(work, place):
        try:
            while time.monotonic() < end and not failures:
                work(counts[place])
                counts[place] += 1
        except BaseException as error:
            failures.append(error)

    def change(number):
        index.add([Document(f"river {number} part {i}", {"batch": number}, f"{number}-{i}") for i in range(10)])
        if number % 3 == 2:
            index.delete([f"{number - 1}-{i}" for i in range(10)])

    threads = [threading.Thread(target=guarded, args=(change, 0))]
    threads += [threading.Thread(target=guarded, args=(partial(look, index), i + 1)) for i in range(searchers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    if failures:
        raise failures[0]
    return counts


def test_one_adder_and_three_searchers_for_a_second(tmp_path):
    assert min(add_and_search(tmp_path / "i", 1)) > 5
    assert verify(tmp_path / "i").ok


@pytest.mark.slow
def test_one_adder_and_three_searchers_for_ten_seconds(tmp_path):
    assert min(add_and_search(tmp_path / "i", 10)) > 50
    assert verify(tmp_path / "i").ok


@pytest.mark.slow
def test_the_same_with_faiss_alone_breaks():
    """The harness bites: a FAISS index that is searched while it is added to crashes, or returns rows it has not."""
    code = """
import threading, time, sys
import faiss, numpy as np
index = faiss.IndexFlatIP(256)
vectors = np.random.default_rng(0).standard_normal((1000, 256)).astype(np.float32)
index.add(vectors)
end, failures = time.monotonic() + 4, []
def add():
    while time.monotonic() < end:
        index.add(vectors)
        if index.ntotal > 200_000:
            index.reset()
            index.add(vectors)
def search():
    while time.monotonic() < end:
        scores, found = index.search(vectors[:4], 5)
        if (found < 0).any() or (found[:, 0] % 1000 != np.arange(4)).any():
            failures.append(found)
threads = [threading.Thread(target=add), *(threading.Thread(target=search) for _ in range(3))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(bool(failures))
"""
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True).returncode for _ in range(3)]
    assert any(done), done


def test_eight_threads_get_what_one_gets(tmp_path):
    words = ["river", "stone", "cat", "sea", "green", "house"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 4)) for _ in range(300)]
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document(text, {"n": i % 5}, str(i)) for i, text in enumerate(texts)])
        jobs = [
            (" ".join(rng.choice(words, 2)), int(rng.integers(1, 20)), mode, where)
            for mode in ("dense", "lexical", "hybrid")
            for where in (None, {"n": 3})
            for _ in range(40)
        ]

        def search(job):
            return index.search(job[0], job[1], mode=job[2], where=job[3])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(search, jobs)) == [search(job) for job in jobs]


def test_closing_while_others_search_is_told_to_them(tmp_path):
    index = Index.create(tmp_path / "i", ToyEmbedder())
    index.add(["a text"])
    index.close()
    index.close()
    for call in (lambda: index.search("a"), lambda: index.add(["b"]), lambda: len(index), index.info):
        with pytest.raises(InputError, match="closed"):
            call()


ADDS = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

with Index.open(sys.argv[1], ToyEmbedder()) as index:
    print("ready", flush=True)
    for number in range(int(sys.argv[2])):
        index.add([Document(f"text {number} new", {"n": number, "m": number}, str(number % 300))])
"""


def test_verify_reports_nothing_beside_a_process_that_writes(tmp_path):
    folder = tmp_path / "i"
    with Index.create(folder, ToyEmbedder()) as index:
        index.add([Document(f"text {number}", {"n": number}, str(number)) for number in range(300)])
    writer = start(ADDS, folder, 400)
    assert writer.stdout.readline() == "ready\n"
    verified = 0
    with Index.open(folder, ToyEmbedder()) as index:
        while writer.poll() is None:
            assert index.verify().problems == ()
            verified += 1
    writer.communicate()
    assert writer.returncode == 0
    assert verified > 5
