"""A1: an acknowledged add survives `kill -9`, and one that was not acknowledged leaves no trace."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Index

CHILD = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

folder, start = sys.argv[1], int(sys.argv[2])
index = Index.open(folder, ToyEmbedder())
print("ready", flush=True)
for batch in range(start, start + 100_000):
    index.add([Document(f"text {batch} part {i}", {"batch": batch}, f"{batch}-{i}") for i in range(5)])
    if batch % 7 == 0:
        index.delete([f"{batch}-0"])
        index.rebuild()
    print(batch, flush=True)
"""


@pytest.mark.slow
def test_fifty_kills_lose_nothing_that_was_acknowledged(tmp_path):
    folder = tmp_path / "i"
    Index.create(folder, ToyEmbedder()).close()
    dice = random.Random(0)
    acknowledged = set()
    for _ in range(50):
        start = max(acknowledged, default=-1) + 2
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(start)], stdout=subprocess.PIPE, text=True, cwd=_root()
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        printed = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        child.wait()
        child.stdout.close()
        acknowledged |= set(printed)
        with Index.open(folder, ToyEmbedder()) as index:
            parts = {}
            for document in index:
                parts.setdefault(document.metadata["batch"], set()).add(document.id)
            for batch in acknowledged:
                whole = {f"{batch}-{i}" for i in range(batch % 7 == 0, 5)}
                assert parts.pop(batch) == whole, batch
            assert len(parts) <= 50, "batches that were durable when the kill came, one a round"
            for batch, found in parts.items():
                assert found in ({f"{batch}-{i}" for i in range(5)}, {f"{batch}-{i}" for i in range(1, 5)})
            count = len(index)
            assert len(index.search("text part", count + 10, mode="dense")) == count
            assert len(index.search("part", count + 10, mode="lexical")) == count
    assert len(acknowledged) > 100


def _root():
    from pathlib import Path

    return Path(__file__).parents[2]
