"""After an exception at any line of a change the same object, a second process and a fresh one give the committed state."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests.indexing.test_index import ToyWithProvenance
from tests.reliability.interrupter import ERRORS, RAISERS, Count, at_line, at_statement, is_free
from tests.toy import ToyEmbedder
from tp_retrieval import CorruptIndexError, Document, Index, IndexAccessError, InputError
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.sqlite import fork_safety, shared_file
from tp_retrieval.sqlite.file_checksum import FileChecksum

# an exception between the opening of a file and its `with` leaves the closing to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).parents[2]
WORDS = ["river", "stone", "cat", "sea", "green", "house", "moon"]
BASE = [Document(f"{WORDS[i % 7]} {WORDS[i % 5]} {i}", {"n": i % 4}, f"d{i}") for i in range(62)]
NEW = [Document("river moon new", {"n": 9}, "d3"), *(Document(f"stone new {i}", {"n": 9}, f"new{i}") for i in range(3))]
MOVED = {"d5": Document(BASE[5].text, {}, "moved")}
PASSES = int(os.environ.get("TP_RETRIEVAL_TEST_PASSES", "1"))  # of a line in a loop; its later passes change nothing new
QUERIES = ("river moon", "stone 7")

CHANGES = {
    "add": lambda index: index.add(NEW),  # replaces one, and reaches the number from which maps are fitted
    "delete": lambda index: index.delete(where={"n": 1}),
    "update": lambda index: index.update({f"d{i}": Document(BASE[i].text, {"n": 9}, f"d{i + 1}") for i in (3, 4)} | MOVED),
    "clear": lambda index: index.clear(),
    "rebuild": lambda index: index.rebuild(postprocess="center"),
    "verify": lambda index: index.verify(repair=True),
    "close": lambda index: index.close(),
}
PREPARE = {
    "close": lambda index: index.add([Document("something to write at the end", {}, "d62")]),
    "verify": lambda index: [file.unlink() for file in index._folder.glob("vectors-*")],  # something to repair
}


def look(index):
    """Return what an index holds and answers: its ids, and hits with scores in every mode."""
    found = [
        [[hit.document.id, round(hit.score, 5) + 0.0] for hit in index.search(query, 100, mode=mode)]
        for query in QUERIES
        for mode in ("dense", "lexical", "hybrid")
    ]
    return [[document.id for document in index], len(index), found]


def look_or_closed(index):
    """Return what `look` returns, None where the index says that it is closed."""
    try:
        return look(index)
    except InputError as error:
        if "closed" not in str(error):
            raise
        return None


def close_enough(one, other):
    return one[:2] == other[:2] and all(
        [id_ for id_, _ in mine] == [id_ for id_, _ in theirs]
        and np.allclose([score for _, score in mine], [score for _, score in theirs], atol=5e-5)
        for mine, theirs in zip(one[2], other[2], strict=True)
    )


def truth(documents, fitted):
    """Return what an index that was never interrupted answers; its dense part is checked against numpy."""
    embedder = ToyWithProvenance("center")
    raw = embedder.embed_documents([d.text for d in documents]).astype(np.float64)
    mean = raw.mean(axis=0) if fitted else 0
    answers = {}
    for query in QUERIES if documents else ():
        vectors = np.concatenate([raw, embedder.embed_queries([query])]) - mean
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = (unit[:-1] @ unit[-1]).round(7)
        answers[query] = [[documents[i].id, cosines[i]] for i in np.lexsort((np.arange(len(cosines)), -cosines))]
    return answers


SECOND = """
import json, sys
from tests.indexing.test_index import ToyWithProvenance
from tests.reliability.test_interrupts import look
from tp_retrieval import Index
for line in sys.stdin:
    work, folder = json.loads(line)
    if work == "open":
        index = Index.open(folder, ToyWithProvenance("center"))
    answer = look(index)
    if work == "close":
        index.close()
    print(json.dumps(answer), flush=True)
"""


class Second:
    """Another process that has the index open."""

    def __init__(self):
        command = [sys.executable, "-c", SECOND]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, work, folder):
        self._child.stdin.write(json.dumps([work, str(folder)]) + "\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def end(self):
        self._child.communicate()


@pytest.fixture(scope="module")
def second():
    child = Second()
    yield child
    child.end()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template") / "i"
    with Index.create(folder, ToyWithProvenance("center")) as index:
        index.add(BASE)
    return folder


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """An index that scans the codes of 700 rows."""
    folder = tmp_path_factory.mktemp("scanned") / "i"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "TRAIN_AT", 700)
        with Index.create(folder, ToyWithProvenance("center")) as index:
            index.add([Document(f"{WORDS[i % 7]} {WORDS[i % 5]} {i}", {"n": i % 90}, f"d{i}") for i in range(700)])
            index.wait_until_built()
            assert index.info().tuning is not None
    return folder


@pytest.fixture(scope="module")
def states(template, tmp_path_factory):
    """What is true before and after each change."""
    return {name: states_of(template, tmp_path_factory.mktemp(name) / "i", name) for name in CHANGES}


def states_of(template, folder, name):
    shutil.copytree(template, folder)
    with Index.open(folder, ToyWithProvenance("center")) as index:
        PREPARE.get(name, len)(index)
        before = look_at_the_truth(index)
        CHANGES[name](index)
    with Index.open(folder, ToyWithProvenance("center")) as index:
        return before, look_at_the_truth(index)


def look_at_the_truth(index):
    """Return what `look` does, compared with numpy where the maps were fitted on the documents that are there."""
    info = index.info()
    if info.fitted_on in (0, info.documents):
        answers = truth(list(index), info.fitted == ("center",))
        for query, answer in answers.items():
            mine = index.search(query, 100, mode="dense")
            assert np.allclose([hit.score for hit in mine], [score for _, score in answer[:100]], atol=1e-5)
    return look(index)


class Round:
    """One interrupted change of a copy of the template, and what everybody sees afterwards."""

    def __init__(self, template, second, folder, name):
        self.name, self.second, self.folder = name, second, folder
        shutil.copytree(template, folder)
        self.index = Index.open(folder, ToyWithProvenance("center"))
        PREPARE.get(name, len)(self.index)
        second.ask("open", folder)

    def interrupted(self, interrupt):
        """Run a change under an interrupt; return whether it was hit."""
        try:
            with interrupt(self.index._store.database):
                CHANGES[self.name](self.index)
        except ERRORS:
            return True
        return False

    def check(self, states):
        """Compare all observers with the truth; after a close the same object may say that it is closed.

        The same object is asked first: what a fresh one writes when it is closed would remind it of what it missed.
        """
        for lock in (fork_safety._one_fork, shared_file.lock, self.index._lock):
            assert is_free(lock), "another thread would wait for ever"
        mine = look_or_closed(self.index)
        closed = mine is None or self.index._store.database.closed
        assert mine is None or any(close_enough(mine, state) for state in states), "the same object is of neither state"
        seen = self.second.ask("look", self.folder)
        assert any(close_enough(seen, state) for state in states), "a second process is of neither state"
        assert closed or close_enough(look(self.index), seen), "the same object differs"
        with Index.open(self.folder, ToyWithProvenance("center")) as fresh:
            assert close_enough(look(fresh), seen), "a fresh one differs"
        if not closed:
            self.index.add([Document("house green last", {}, "last")])
            seen = look(self.index)
            assert seen[1] == len(seen[0])
            assert len(seen[2][0]) == min(100, seen[1])
            assert seen[0][-1] == "last"
        assert close_enough(self.second.ask("close", self.folder), seen), "a second process does not follow"
        self.index.close()
        shutil.rmtree(self.folder)


def line(nth, fail):
    return lambda _: at_line(Count(nth, fail), PASSES)


def statement(nth, fail, after):
    return lambda database: at_statement(database, Count(nth, fail), after)


def interrupt_everywhere(template, second, states, tmp_path, name, moments):
    """Interrupt a change at every moment of a sequence until it gets through; return how many there were."""
    n = 0
    for n, interrupt in enumerate(moments):
        trial = Round(template, second, tmp_path / f"{name}{n}", name)
        hit = trial.interrupted(interrupt)
        trial.check(states[name])
        if not hit:
            return n
    return n + 1


@pytest.mark.parametrize("name", CHANGES)
def test_an_interrupt_at_some_statements_leaves_all_in_step(template, second, states, tmp_path, name):
    moments = (statement(nth, RAISERS[nth % 3], nth % 2) for nth in count(1, 13))
    assert interrupt_everywhere(template, second, states, tmp_path, name, moments) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_every_interrupt_at_a_statement_leaves_all_in_step(template, second, states, tmp_path, name, after):
    moments = (statement(nth, RAISERS[nth % 3], after) for nth in count(1))
    assert interrupt_everywhere(template, second, states, tmp_path, name, moments) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_every_interrupt_at_a_line_leaves_all_in_step(template, second, states, tmp_path, name):
    moments = (line(nth, RAISERS[nth % 3]) for nth in count(1))
    assert interrupt_everywhere(template, second, states, tmp_path, name, moments) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["add", "delete"])
def test_an_interrupt_at_every_fifth_line_leaves_an_index_that_scans_codes_in_step(
    scanned, second, tmp_path_factory, tmp_path, name
):
    states = {name: states_of(scanned, tmp_path_factory.mktemp(name) / "i", name)}
    moments = (line(nth, RAISERS[nth % 3]) for nth in count(1, 5))
    assert interrupt_everywhere(scanned, second, states, tmp_path, name, moments) >= 20


@pytest.mark.slow
def test_the_harness_bites(template, second, states, tmp_path, monkeypatch):
    """Marked after the commit instead of before it, as in version 0.1.0, the image answers from the past."""
    mark, follow = SyncedVectors.fall_behind, Index._follow

    def mark_and_follow(self, added=None):
        mark(self._vectors)
        follow(self, added)

    monkeypatch.setattr(SyncedVectors, "fall_behind", lambda self: None)
    monkeypatch.setattr(Index, "_follow", mark_and_follow)
    moments = (line(nth, RAISERS[nth % 3]) for nth in count(1))
    with pytest.raises((AssertionError, CorruptIndexError), match=r"the same object|no document"):
        interrupt_everywhere(template, second, states, tmp_path, "delete", moments)


def search_within(folder, name, nth):
    """Search in a signal handler at the nth line of a change, and go on; return whether the change has so many lines.

    A call within a call of the same thread would read, and keep, uncommitted state: it is refused, and changes nothing.
    """
    with Index.create(folder, ToyWithProvenance("center")) as index:
        index.add(BASE)
        answers = []

        def handler():
            try:
                answers.append(look(index))
            except InputError as error:
                answers.append(str(error))

        before = look(index)
        with at_line(Count(nth, handler), 1):
            CHANGES[name](index)
        seen = look(index)
        with Index.open(folder, ToyWithProvenance("center")) as fresh:
            assert close_enough(look(fresh), seen), nth
            assert fresh.verify().ok
        assert all(
            answer in (before, seen) or "a call within another one of the same thread" in answer for answer in answers
        )
        return len(answers) == 1


def fork_within(folder, name, nth):
    """Fork in a signal handler at the nth line of a change, and go on; return whether the change has so many lines.

    The parent's change is as without. The child makes the same one, or is told that it can't.
    """
    with Index.create(folder, ToyWithProvenance("center")) as index:
        index.add(BASE)
        before, children = look(index), []
        told = ""
        try:
            with at_line(Count(nth, lambda: children.append(os.fork())), 1):
                CHANGES[name](index)
        except IndexAccessError as error:
            told = str(error)
        except BaseException as error:
            if children != [0]:
                raise
            told = repr(error)  # a child that went on would run the tests that are left
        if children == [0]:
            os._exit(told == "" or "this process was forked within a call" in told)
        assert told == ""
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1, nth
        seen = look(index)
        assert seen != before
        with Index.open(folder, ToyWithProvenance("center")) as fresh:
            assert close_enough(look(fresh), seen), nth
            assert fresh.verify().ok
        return len(children) == 1


@pytest.mark.parametrize("nth", range(5, 400, 80))
def test_a_signal_handler_that_forks_within_an_add_does_it_no_harm(tmp_path, nth):
    assert fork_within(tmp_path / "i", "add", nth)


@pytest.mark.parametrize("nth", range(5, 400, 40))
def test_a_signal_handler_that_searches_within_an_add_is_refused_and_changes_nothing(tmp_path, nth):
    assert search_within(tmp_path / "i", "add", nth)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["add", "delete"])
@pytest.mark.parametrize(("within", "step"), [(search_within, 2), (fork_within, 3)])
def test_a_signal_handler_that_searches_or_forks_at_any_line_leaves_the_index_in_step(tmp_path, name, within, step):
    for nth in count(1, step):
        if not within(tmp_path / str(nth), name, nth):
            break
        shutil.rmtree(tmp_path / str(nth))
    assert nth > 200


@pytest.mark.parametrize("handler", ["search", "add", "fork"])
def test_a_signal_handler_while_the_checksum_is_written_lets_no_other_process_write(tmp_path, monkeypatch, handler):
    """The checksum would be of another state, and the index would not open."""
    code = """
import sys
from tests.toy import ToyEmbedder
from tp_retrieval import Index, IndexLockedError
with Index.open(sys.argv[1], ToyEmbedder()) as index:
    index._store.database.execute("PRAGMA busy_timeout = 100")
    try:
        index.add(["more"])
    except IndexLockedError:
        print("locked")
"""
    told = []
    index = Index.create(tmp_path / "i", ToyEmbedder())
    index.add(BASE)
    replace = FileChecksum._replace

    def replacing(self, line):
        if handler == "fork":
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        else:
            with pytest.raises(InputError, match="a call within another one"):
                index.search("stone") if handler == "search" else index.add(["more"])
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "i"], capture_output=True, text=True, cwd=ROOT)
        told.append(done.stdout)
        replace(self, line)

    monkeypatch.setattr(FileChecksum, "_replace", replacing)
    index.close()
    monkeypatch.undo()
    assert told == ["locked\n"]
    with Index.open(tmp_path / "i", ToyEmbedder()) as fresh:
        assert len(fresh) == len(BASE)


def test_a_child_forked_while_the_checksum_is_written_writes_none(tmp_path, monkeypatch):
    """It would be of a state that is past by then."""
    replace, (waits, goes_on), children = FileChecksum._replace, os.pipe(), []

    def replacing(self, line):
        children.append(os.fork())
        if children == [0]:
            os.read(waits, 1)
        replace(self, line)

    index = Index.create(tmp_path / "i", ToyEmbedder())
    index.add(BASE)
    monkeypatch.setattr(FileChecksum, "_replace", replacing)
    index.close()
    if children == [0]:
        os._exit(0)
    monkeypatch.undo()
    with Index.open(tmp_path / "i", ToyEmbedder()) as changed:
        changed.add(["more"])
    os.write(goes_on, b"x")
    assert os.waitpid(children[0], 0)[1] == 0
    with Index.open(tmp_path / "i", ToyEmbedder()) as fresh:
        assert len(fresh) == len(BASE) + 1
    os.close(waits)
    os.close(goes_on)
