"""An acknowledged add survives `kill -9`, and one that was not acknowledged leaves no trace."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.toy import StretchEmbedder, ToyEmbedder
from tp_retrieval import Document, Index

PART = 5
OURS = """
import sys
from tests.toy import StretchEmbedder
from tp_retrieval import Document, Index

folder, start = sys.argv[1], int(sys.argv[2])
index = Index.open(folder, StretchEmbedder())
print("ready", flush=True)
for batch in range(start, start + 100_000):
    index.add([Document(f"text {batch} part {i}", {"batch": batch}, f"{batch}-{i}") for i in range(5)])
    if batch % 7 == 0:
        index.delete([f"{batch}-0"])
        index.rebuild()
    print(batch, flush=True)
"""
NAIVE = """
import json, sys
from pathlib import Path
import faiss
from tests.toy import ToyEmbedder

folder, start = Path(sys.argv[1]), int(sys.argv[2])
index, texts = faiss.read_index(str(folder / "index.faiss")), json.loads((folder / "texts.json").read_text())
print("ready", flush=True)
for batch in range(start, start + 100_000):
    new = [f"text {batch} part {i}" for i in range(5)]
    index.add(ToyEmbedder().embed_documents(new))
    texts += new
    faiss.write_index(index, str(folder / "index.faiss"))
    (folder / "texts.json").write_text(json.dumps(texts))
    print(batch, flush=True)
"""


SCANNED = OURS.replace(
    "from tp_retrieval import", "from tp_retrieval.indexing.vectors import kinds\nfrom tp_retrieval import"
)
SCANNED = SCANNED.replace("folder, start", "kinds.TRAIN_AT = 600\nfolder, start", 1)


def kill_again_and_again(code, folder, check, rounds, seed=0, acknowledged=()):
    """Let a child add for ever, kill it, check what a fresh process finds; return how many adds were acknowledged."""
    dice = random.Random(seed)
    acknowledged = set(acknowledged)
    for _ in range(rounds):
        start = max(acknowledged, default=-1) + 2
        command = [sys.executable, "-c", code, str(folder), str(start)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
        assert child.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        printed = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        child.wait()
        child.stdout.close()
        acknowledged |= set(printed)
        check(folder, acknowledged)
    return len(acknowledged)


ROOT = Path(__file__).parents[2]


def ours_is_whole(folder, acknowledged):
    with Index.open(folder, StretchEmbedder()) as index:
        parts = {}
        for document in index:
            parts.setdefault(document.metadata["batch"], set()).add(document.id)
        for batch in acknowledged:
            assert parts.pop(batch) == {f"{batch}-{i}" for i in range(batch % 7 == 0, PART)}, batch
        for batch, found in parts.items():  # durable when the kill came, but not yet told
            assert found in ({f"{batch}-{i}" for i in range(PART)}, {f"{batch}-{i}" for i in range(1, PART)})
        count = len(index)
        assert index.info().fitted == ("within:8", "within:4") or count < 16
        counts = index._store.stretches.counts()  # deletes may have taken a few of the sample
        assert all(min(count, size) - 9 < counts[view] <= size for view, size in ((0, 512), (1, 256))) or count < 16
        assert len(acknowledged) % 10 or index.verify().ok
        assert len(index.search("text part", count + 10, mode="dense")) == count
        assert len(index.search("part", count + 10, mode="lexical")) == count


def naive_is_whole(folder, acknowledged):
    import json

    import faiss

    index, texts = faiss.read_index(str(folder / "index.faiss")), json.loads((folder / "texts.json").read_text())
    assert index.ntotal == len(texts)
    assert {f"text {batch} part 0" for batch in acknowledged} <= set(texts)


@pytest.mark.slow
def test_three_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path):
    folder = tmp_path / "i"
    Index.create(folder, StretchEmbedder()).close()
    assert kill_again_and_again(OURS, folder, ours_is_whole, 300) > 600


@pytest.mark.slow
def test_a_hundred_kills_of_an_index_that_scans_codes_lose_nothing(tmp_path, monkeypatch):
    """Codes are built beside the adds, and anew by each seventh; 600 rows are there before."""
    monkeypatch.setattr("tp_retrieval.indexing.vectors.kinds.TRAIN_AT", 600)
    folder, batches = tmp_path / "i", range(160)
    with Index.create(folder, StretchEmbedder()) as index:
        texts = [(batch, i) for batch in batches for i in range(batch % 7 == 0, PART)]
        index.add([Document(f"text {batch} part {i}", {"batch": batch}, f"{batch}-{i}") for batch, i in texts])
    assert kill_again_and_again(SCANNED, folder, ours_is_whole, 100, acknowledged=batches) > 200
    with Index.open(folder, StretchEmbedder()) as index:
        index.wait_until_built()  # where the last kill came before that
        assert index.info().tuning is not None
        assert index.verify().ok


@pytest.mark.slow
def test_the_same_kills_break_two_files_saved_in_place(tmp_path):
    """The harness bites: a FAISS file and a JSON file, as most local stores keep them."""
    import faiss

    faiss.write_index(faiss.IndexFlatIP(ToyEmbedder.dimension), str(tmp_path / "index.faiss"))
    (tmp_path / "texts.json").write_text("[]")
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        kill_again_and_again(NAIVE, tmp_path, naive_is_whole, 300)
