"""An index that this user may read but not write: opened, searched, and followed while its owner writes."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

ROOT = Path(__file__).parents[2]
READER = """
import json, os, sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index, TPRetrievalError

folder, scratch = sys.argv[1:]
with Index.create(scratch, ToyEmbedder()) as index:  # which imports all there is to import, while this user may
    index.add(["text"])
with Index.open(scratch, ToyEmbedder()) as index:
    index.search("text")
if os.geteuid() == 0:
    os.seteuid(65534)

def said(call):
    try:
        return call()
    except TPRetrievalError as error:
        return f"{type(error).__name__}: {error}"

index = None

def opened():
    global index
    index = Index.open(folder, ToyEmbedder())

def found():
    return [[hit.document.id, hit.score] for hit in index.search("text of stone", 99)]

def held():
    with index._store.snapshot():
        print(json.dumps("held"), flush=True)
        sys.stdin.readline()
        index._vectors._last_seq = 1_000  # as what is read of several states may say

calls = {
    "open": opened,
    "search": found,
    "len": lambda: len(index),
    "verify": lambda: index.verify().ok,
    "add": lambda: index.add(["one more"]),
    "hold": held,
    "close": lambda: index.close(),
}
for line in sys.stdin:
    print(json.dumps(said(calls[line.strip()])), flush=True)
"""


class Owned:
    """An index in a folder that its owner alone may write, and a process of somebody else's who reads it."""

    def __init__(self, place):
        self.folder = place / "i"
        with Index.create(self.folder, ToyEmbedder()) as index:
            index.add([Document(f"text {i}", {}, str(i)) for i in range(50)])
        self.protect()
        (place / "scratch").mkdir()
        command = [sys.executable, "-c", READER, str(self.folder), str(place / "scratch" / "i")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, cwd=ROOT, **pipes)

    def protect(self):
        self.folder.chmod(0o555)

    def owner(self):
        """Open the index as its owner."""
        self.folder.chmod(0o755)
        return Index.open(self.folder, ToyEmbedder())

    def reader(self, call):
        self.process.stdin.write(f"{call}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def files(self):
        return {file.name: file.read_bytes() for file in self.folder.iterdir()}


@pytest.fixture
def owned():
    with TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        Path(place).chmod(0o755)
        owned = Owned(Path(place))
        with owned.process:
            yield owned
            owned.process.stdin.close()
            errors = owned.process.stderr.read()
        owned.folder.chmod(0o755)
    assert "Traceback" not in errors


def found(index):
    return [[hit.document.id, hit.score] for hit in index.search("text of stone", 99)]


def test_it_opens_and_every_change_is_refused(owned):
    before = owned.files()
    assert owned.reader("open") is None
    with owned.owner() as index:
        want = found(index)
    owned.protect()
    assert owned.reader("search") == want
    assert owned.reader("verify") is True
    assert owned.reader("add").startswith(f"IndexAccessError: {owned.folder}/index.sqlite: ")
    assert owned.reader("len") == 50
    assert owned.reader("close") is None
    assert owned.files() == before


def test_what_its_owner_adds_and_removes_is_seen_at_the_next_call(owned):
    """By a connection that takes the file for one that nobody writes, until somebody does."""
    assert owned.reader("open") is None
    assert owned.reader("len") == 50
    for number in range(3):
        with owned.owner() as index:
            owned.protect()
            index.add([Document(f"text of stone {number}", {}, f"new {number}")])
            assert owned.reader("search") == found(index), "while it is open"
            index.delete([str(number)])
            assert owned.reader("search") == found(index)
            index.add([Document("text of wood", {}, "last")])
            want = found(index)
            owned.folder.chmod(0o755)
        owned.protect()
        assert owned.reader("search") == want, "when it is closed"
        assert owned.reader("len") == 51
    assert owned.reader("verify") is True


def test_it_does_not_open_without_the_changes_that_a_killed_owner_left_in_the_log(owned):
    with closing(owned.owner()) as index:
        index.add(["text of stone"])
        left = {name: content for name, content in owned.files().items() if "shm" not in name}
    for file in owned.folder.iterdir():
        file.unlink()
    for name, content in left.items():
        (owned.folder / name).write_bytes(content)
    owned.protect()
    assert "its latest changes are in its log" in owned.reader("open")
    with owned.owner() as index:
        assert len(index) == 51
    owned.protect()
    assert owned.reader("open") is None
    assert owned.reader("len") == 51


@pytest.mark.parametrize("written", [False, True])
def test_a_read_during_which_its_owner_wrote_the_file_is_told_to_try_again(owned, written):
    assert owned.reader("open") is None
    assert owned.reader("hold") == "held"
    with owned.owner() as index:
        if written:
            index.add(["text of stone"])
        want = found(index)
    owned.protect()
    done = owned.reader("go on")
    assert (done and done.partition(": ")[0]) == ("IndexAccessError" if written else None), done
    assert not written or done.endswith("index.sqlite: another process wrote meanwhile; try again")
    assert owned.reader("len") == 50 + written
    assert owned.reader("search") == want, "nothing that was read then is used"
