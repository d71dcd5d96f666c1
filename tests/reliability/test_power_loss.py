"""After a power loss acknowledged changes are complete, others complete or absent, and all parts of the index agree.

A child lives the life of an index under a trace; the trace is cut at many places, and of what the disk was not made to
keep some is lost. Each such folder is opened, compared with a dict and numpy, and verified.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.reliability.power_loss import crash_states
from tests.reliability.recovered import what_is_wrong
from tests.reliability.scenario import plan, states
from tests.reliability.tracing import Event

INDEX = Path("above", "index")
SLOW = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # where there is one, crash states are opened there: they are many, and a disk is slow to sync


@pytest.fixture
def fast(tmp_path):
    inside = MEMORY if os.access(MEMORY, os.W_OK) else tmp_path
    folder = Path(tempfile.mkdtemp(dir=inside))
    yield folder
    shutil.rmtree(folder)


def live(tmp_path, seed, count, *pragmas, made=True):
    """Let a child live; return the root of what was traced, and the events."""
    root = tmp_path.resolve() / "root"
    (root / INDEX if made else root).mkdir(parents=True)
    return root, traced(root, seed, count, *pragmas)


def traced(root, *arguments):
    into = root.with_suffix(".trace")
    command = [sys.executable, "-m", "tests.reliability.scenario", root, root / INDEX, into, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return [Event.of(line) for line in into.read_text().splitlines()]


def crash(root, events, fast, seed, count, wanted):
    """Open what up to `wanted` crashes left; return how many there were, and what was wrong."""
    lives, wrong, number = states(plan(seed, count)), [], 0
    for number, state in enumerate(crash_states(events, root, wanted, seed), 1):
        folder = fast / str(number)
        state.write(root, folder)
        allowed = lives[state.acknowledged : state.begun + 1]
        problem = what_is_wrong(folder / INDEX, allowed, go_on=number % 8 == 0)
        if problem:
            wrong.append(f"after event {state.position}, {state.kind}: {problem}")
        shutil.rmtree(folder)
    return number, wrong


def without_syncs(events, ending):
    """Return a trace of a disk, or a program, that takes no notice when some files are to be made durable."""
    return [event for event in events if not (event.what.startswith("sync") and event.path.endswith(ending))]


def test_a_power_loss_loses_nothing_acknowledged_and_leaves_nothing_half(tmp_path, fast):
    root, events = live(tmp_path, 2, 12)
    count, wrong = crash(root, events, fast, 2, 12, 90)
    assert wrong == []
    assert count >= 60


@SLOW
@pytest.mark.parametrize("seed", range(8))
def test_two_thousand_power_losses(tmp_path, fast, seed):
    root, events = live(tmp_path, seed, 45)
    count, wrong = crash(root, events, fast, seed, 45, 400)
    assert wrong == []
    assert count > 250, "different states, eight times"


@SLOW
def test_a_second_power_loss_while_the_index_recovers_from_the_first(tmp_path, fast):
    root, events = live(tmp_path, 2, 25)
    lives, count = states(plan(2, 25)), 0
    first = [state for state in crash_states(events, root, 120, 1) if state.acknowledged]
    for number, state in enumerate(random.Random(0).sample(first, 5)):
        again = tmp_path.resolve() / f"again{number}"
        state.write(root, again)
        allowed = lives[state.acknowledged : state.begun + 1]
        for second in crash_states(traced(again, 2, 0), again, 100, number):
            count += 1
            second.write(again, fast / f"{number}-{count}")
            assert what_is_wrong(fast / f"{number}-{count}" / INDEX, allowed) is None, (state.position, second.position)
    assert count > 100


@pytest.mark.parametrize(
    ("ignored", "share"),
    [("-wal", 0.2), pytest.param("index.sqlite", 0.5, marks=SLOW), pytest.param("index", 0.3, marks=SLOW)],
)
def test_a_disk_that_ignores_a_sync_is_found_out(tmp_path, fast, ignored, share):
    """The harness bites: the log, the database and the folder must each be made durable, or much is lost."""
    root, events = live(tmp_path, 2, 25)
    count, wrong = crash(root, without_syncs(events, ignored), fast, 2, 25, 60)
    assert len(wrong) > share * count


@SLOW
def test_an_index_that_does_not_wait_for_the_disk_is_found_out(tmp_path, fast):
    root, events = live(tmp_path, 2, 25, "synchronous = OFF")
    count, wrong = crash(root, events, fast, 2, 25, 100)
    assert len(wrong) > count / 5


@SLOW
def test_a_new_index_outlasts_a_power_loss_with_its_folder(tmp_path, fast):
    root, events = live(tmp_path, 0, 8, made=False)
    assert crash(root, events, fast, 0, 8, 60)[1] == []
