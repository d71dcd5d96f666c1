"""Whatever several processes do to one index at once, some order of their calls explains all results (linearizability).

Two writers and two readers note when each call was invoked and returned, and what came back. An `add` that returned is seen
by every read invoked later, in every process; a search sees the documents of one moment.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability.legal_order import Call, explained
from tests.toy import ToyEmbedder
from tp_retrieval import Index
from tp_retrieval.indexing.verify import verify

ROOT = Path(__file__).parents[2]
PROCESS = '''
import contextlib
import json, random, sys, threading, time
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

IDS = ("a", "b", "c", "d")
folder, role, process, seed, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
dice = random.Random(f"{seed} {process}")
index = Index.open(folder, ToyEmbedder())

def pairs(documents):
    return sorted((document.id, document.metadata["version"]) for document in documents)

kept = []

def note(values):
    """A writer may be killed; a reader's pipe may be full, and it reads on."""
    line = json.dumps(values)
    print(line, flush=True) if role == "writer" else kept.append(line)

def write(number):
    what = dice.choice(("add", "add", "add", "delete"))
    ids = dice.sample(IDS, dice.randint(1, 3))
    if what == "add":
        given = [(id_, f"{process}-{number}") for id_ in ids]
        documents = [Document(f"common text {version}", {"version": version}, id_) for id_, version in given]
        return what, given, lambda: index.add(documents) and None
    return what, ids, lambda: index.delete(ids)

def read(number):
    what = dice.choice(("get", "search", "search", "len"))
    if what == "get":
        ids = dice.sample(IDS, dice.randint(1, 4))
        return what, ids, lambda: pairs(index.get(ids))
    if what == "search":
        mode = dice.choice(("dense", "lexical", "hybrid"))
        return what, [], lambda: pairs(hit.document for hit in index.search("common", 9, mode=mode))
    return what, [], lambda: len(index)

if role == "stale":
    index._store.snapshot = contextlib.nullcontext  # so that one moment is kept for good
    index._store.database.execute("BEGIN")
    len(index)
print("ready", flush=True)
sys.stdin.readline()
stop = threading.Event()
if role == "reader":
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set())).start()
for number in range(count):
    if stop.is_set():
        break
    what, given, call = (write if role == "writer" and dice.random() < 0.8 else read)(number)
    note([process, time.monotonic_ns(), what, given])
    result = call()
    note([time.monotonic_ns(), result])
    if role == "writer" and dice.random() < 0.05:
        dice.choice((index.rebuild, index.close))()
        index = index if not index._store.database.closed else Index.open(folder, ToyEmbedder())
for line in kept:
    print(line)
'''


def record(folder, seed, counts, *, last="reader", kill=False):
    """Let two writers, and two readers for as long, call an index at once; return their calls.

    The last reader may be a stale one, which begins to read when the others are through.
    """
    Index.create(folder, ToyEmbedder()).close()
    children = []
    for process, role in enumerate(("writer", "writer", "reader", last)):
        arguments = (sys.executable, "-c", PROCESS, folder, role, process, seed, counts[role == "writer"])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children.append(subprocess.Popen([str(part) for part in arguments], text=True, cwd=ROOT, **pipes))
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children[: 3 if last == "stale" else 4]:
        child.stdin.write("go\n")
        child.stdin.flush()
    killed = []
    if kill:
        with children[0] as writer:
            begun = [writer.stdout.readline() for _ in range(counts[True])]  # it is half through
            writer.kill()
            killed = [[*begun, *writer.stdout]]  # `communicate` would leave out what readline has buffered
    lines = killed + [child.communicate("stop\n")[0].splitlines() for child in children[kill:]]  # the writers first
    assert [child.returncode for child in children[kill:]] == [0] * (4 - kill)
    return [call for printed in lines for call in calls_of(printed)]


def calls_of(lines):
    """Return the calls that a process printed: a line when one was invoked, another when it returned."""
    whole = [json.loads(line) for line in lines]
    for invoked, returned in zip(whole[::2], [*whole[1::2], [None, None]][: len(whole[::2])], strict=True):
        process, begin, what, given = invoked
        yield Call(process, begin, returned[0], what, frozen(given), frozen(returned[1]))


def frozen(value):
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def crossed(calls):
    """Return how many reads ran while a writer of another process wrote."""
    writes = [call for call in calls if call.what in ("add", "delete") and call.returned is not None]
    return sum(
        any(w.process != call.process and w.invoked < call.returned and call.invoked < w.returned for w in writes)
        for call in calls
        if call.what in ("get", "search", "len") and call.returned is not None
    )


def test_a_legal_order_exists_for_what_four_processes_saw(tmp_path):
    """And the harness bites: after the last read, one more that sees what only an earlier read saw is found out."""
    calls = record(tmp_path / "i", 0, {True: 30, False: 1000})
    assert sum(call.process < 2 for call in calls) == 60
    assert crossed(calls) > 10, "they were at it at once"
    with Index.open(tmp_path / "i", ToyEmbedder()) as index:
        begin = time.monotonic_ns()
        pairs = sorted((hit.document.id, hit.document.metadata["version"]) for hit in index.search("common", 9))
        calls.append(Call(4, begin, time.monotonic_ns(), "search", (), tuple(pairs)))
        assert index.verify().ok
    assert explained(calls)
    past = next(call.result for call in calls if call.what == "search" and not {*call.result} <= {*pairs})
    last = calls[-1].returned
    assert not explained([*calls, Call(4, last + 1, last + 2, "search", (), past)])


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_legal_order_exists_for_longer_runs_and_around_a_killed_writer(tmp_path, seed, kill):
    calls = record(tmp_path / "i", seed, {True: 150, False: 4000}, kill=kill)
    assert crossed(calls) > 100
    assert explained(calls)
    assert verify(tmp_path / "i").ok


def test_a_reader_that_stays_in_the_past_is_found_out(tmp_path):
    """The harness bites: the last reader keeps the moment of its first read."""
    calls = record(tmp_path / "i", 0, {True: 20, False: 40}, last="stale")
    assert explained([call for call in calls if call.process != 3])
    assert not explained(calls)


def call(process, invoked, returned, what, given=(), result=None):
    return Call(process, invoked, returned, what, given, result)


ONE, TWO, BOTH = (("a", "1"),), (("a", "2"),), (("a", "1"), ("b", "1"))
HISTORIES = {
    "a read after a write sees it": (True, [call(0, 1, 2, "add", ONE), call(1, 3, 4, "search", (), ONE)]),
    "a read after a write does not see it": (False, [call(0, 1, 2, "add", ONE), call(1, 3, 4, "search", (), ())]),
    "a read during a write may see it": (True, [call(0, 1, 5, "add", ONE), call(1, 2, 3, "len", (), 1)]),
    "a read during a write may not see it": (True, [call(0, 1, 5, "add", ONE), call(1, 2, 3, "len", (), 0)]),
    "a reader goes back": (
        False,
        [call(0, 1, 9, "add", ONE), call(1, 2, 3, "len", (), 1), call(1, 4, 5, "len", (), 0)],
    ),
    "another reader goes back": (
        False,
        [call(0, 1, 9, "add", ONE), call(1, 2, 3, "len", (), 1), call(2, 4, 5, "get", ("a",), ())],
    ),
    "half of an add is seen": (False, [call(0, 1, 9, "add", BOTH), call(1, 2, 3, "search", (), ONE)]),
    "two readers see two writes in two orders": (
        False,
        [
            *(call(0, 1, 9, "add", ONE), call(1, 1, 9, "add", TWO)),
            *(call(2, 2, 3, "search", (), ONE), call(2, 4, 5, "search", (), TWO)),
            *(call(3, 2, 3, "search", (), TWO), call(3, 4, 5, "search", (), ONE)),
        ],
    ),
    "a write is lost": (
        False,
        [call(0, 1, 4, "add", ONE), call(1, 2, 3, "add", (("b", "1"),)), call(0, 5, 6, "search", (), ONE)],
    ),
    "two deletes of one document both count it": (
        False,
        [call(0, 1, 2, "add", ONE), call(0, 3, 6, "delete", ("a",), 1), call(1, 4, 5, "delete", ("a",), 1)],
    ),
    "a killed write is seen": (True, [call(0, 1, None, "add", ONE), call(1, 3, 4, "len", (), 1)]),
    "a killed write is not seen": (True, [call(0, 1, None, "add", ONE), call(1, 3, 4, "len", (), 0)]),
    "a killed write comes and goes": (
        False,
        [call(0, 1, None, "add", ONE), call(1, 3, 4, "len", (), 1), call(1, 5, 6, "len", (), 0)],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_search_tells_legal_histories_from_others(name):
    legal, calls = HISTORIES[name]
    assert explained(calls) == legal
