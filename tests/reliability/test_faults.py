"""A disk that fails at the Nth write, for N = 1, 2, ... until nothing fails any more."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Index
from tp_retrieval.indexing.verify import verify


def run(folder, fault, at):
    command = [sys.executable, "-m", "tests.reliability.faulty_disk", str(folder), fault, str(at)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return done.returncode, done.stdout.splitlines(), done.stderr


def check(folder, lines):
    """What was acknowledged is there, what was not is there wholly or not at all."""
    acknowledged = {line.removeprefix("acknowledged ") for line in lines if line.startswith("acknowledged")}
    assert verify(folder).ok
    with Index.open(folder, ToyEmbedder()) as index:
        there = {document.id for document in index}
        for batch in range(3):
            whole = {f"{batch}-{i}" for i in range(40)}
            mine = {id_ for id_ in there if id_.startswith(f"{batch}-")}
            if batch == 1 and mine == whole - {"1-0"}:
                mine = whole  # the delete
            assert mine in ((whole,) if str(batch) in acknowledged else (whole, set())), (batch, lines)
        assert ("after" in there) == ("after" in acknowledged)
        assert "1-0" not in there or "delete" not in acknowledged
        count = len(index)
        assert len(index.search("text part", count + 1, mode="dense")) == count


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "exit"])
def test_a_fault_at_every_write_loses_nothing_acknowledged_and_leaves_nothing_half(tmp_path, fault):
    empty = tmp_path / "empty"
    Index.create(empty, ToyEmbedder()).close()
    at, faults = 1, 0
    while True:
        folder = tmp_path / "i"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(empty, folder)
        code, lines, errors = run(folder, fault, at)
        if fault == "exit" and code == 7:
            faults += 1
        else:
            assert code == 0, errors
            faults += "refused" in lines
        check(folder, lines)
        (writes,) = [int(line.split()[1]) for line in lines if line.startswith("writes")] or [at]
        if writes < at:
            break
        at += 1
    assert faults > 20
    assert lines[:4] == ["acknowledged 0", "acknowledged 1", "acknowledged 2", "acknowledged delete"]
