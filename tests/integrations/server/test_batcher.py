"""The batcher: together, in order, in turn, and no one's fault is another's."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tp_retrieval.integrations.server.batcher import CALLER, Batcher
from tp_retrieval.integrations.server.errors import ClosedError, GoneError, OverloadedError


class Slow:
    """Work that doubles numbers, remembers its steps, and waits at the first until it is let go."""

    def __init__(self):
        self.steps = []
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, items):
        self.steps.append(list(items))
        self.began.set()
        self.go.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [2 * item for item in items]


def batcher_of(work, **options):
    batcher = Batcher(**options)
    for kind, compute in work.items():
        batcher.add(kind, compute)
    return batcher


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def held(slow):
    """Return a function that starts calls while the batcher is held at its first step."""
    batchers, pool = [], ThreadPoolExecutor(32)

    def start(calls, **options):
        batcher = batcher_of({"double": slow, "halve": lambda items: [item / 2 for item in items]}, **options)
        batchers.append(batcher)
        first = pool.submit(batcher.run, "double", [0], [1])
        assert slow.began.wait(10)
        found = []
        for kind, items, cost in calls:
            waiting = len(batcher._jobs)
            found.append(pool.submit(batcher.run, kind, items, [cost] * len(items)))
            while len(batcher._jobs) == waiting and not found[-1].done():
                time.sleep(0.001)
        slow.go.set()
        return batcher, first, found

    yield start
    slow.go.set()
    for batcher in batchers:
        batcher.close()
    pool.shutdown()


def test_the_speed_of_one_kind_says_nothing_about_another(slow):
    slow.go.set()
    batcher = batcher_of({"double": slow, "quick": lambda items: items})
    batcher.run("quick", list(range(100)), [100] * 100)
    batcher.run("quick", list(range(100)), [100] * 100)
    batcher.run("double", list(range(100)), [100] * 100)
    batcher.close()
    assert len(slow.steps[0]) == 10  # as before anything is measured


def test_what_several_callers_ask_for_counts_once_in_the_speed(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    alone, many = batcher_of({"echo": lambda items: items}), batcher_of({"echo": lambda items: items})
    alone.run("echo", ["a"], [100])
    many.run("echo", ["a"] * 5, [100] * 5)
    for one in (alone, many):
        one.close()
    assert many._rates == alone._rates != {}


def test_callers_who_wait_are_served_together_and_each_gets_its_own(held, slow):
    _, first, found = held([("double", [i, i + 100], 1) for i in range(20)])
    assert first.result() == [0]
    assert [one.result() for one in found] == [[2 * i, 2 * i + 200] for i in range(20)]
    assert [len(step) for step in slow.steps] == [1, 40]


def test_apart_every_step_is_one_callers(held, slow):
    _, _, found = held([("double", [i, i + 100], 1) for i in range(3)], together=False)
    assert [one.result() for one in found] == [[2 * i, 2 * i + 200] for i in range(3)]
    assert slow.steps == [[0], [0, 100], [1, 101], [2, 102]]


def test_a_short_list_does_not_wait_for_a_long_one(held, slow, monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))  # else a quick first step allows a long second one
    _, _, (long, short) = held([("double", list(range(1, 101)), 100), ("double", [1000], 100)])
    assert short.result() == [2000]
    assert long.result() == [2 * i for i in range(1, 101)]
    assert 1000 in slow.steps[1]  # the first step after it came
    assert len(slow.steps[1]) < 20


def test_kinds_take_turns(held, slow):
    _, _, (long, other) = held([("double", list(range(1, 101)), 100), ("halve", [8], 100)])
    assert other.result() == [4]
    assert sum(len(step) for step in slow.steps) < 102 or long.done()
    assert long.result()[-1] == 200


def test_a_failure_is_told_to_its_caller_alone(held, slow):
    batcher, _, found = held([("double", [1], 1), ("double", [-1, 2], 1), ("double", [3], 1)])
    assert found[0].result() == [2]
    with pytest.raises(ValueError, match="minus one"):
        found[1].result()
    assert found[2].result() == [6]
    assert batcher.run("double", [4], [1]) == [8]
    assert batcher.waiting == 0


def test_what_is_too_much_is_refused_and_the_rest_is_served(held, slow):
    _, _, found = held([("double", [1, 2], 40), ("double", [3], 20)], waiting=100)
    assert found[0].result() == [2, 4]
    with pytest.raises(OverloadedError, match="81 tokens are waiting, and no more than 100 may"):
        found[1].result()


def test_one_list_longer_than_the_bound_is_served_when_nothing_waits():
    batcher = batcher_of({"double": lambda items: [2 * item for item in items]}, waiting=10)
    assert batcher.run("double", list(range(50)), [1] * 50) == [2 * i for i in range(50)]
    batcher.close()


def test_what_was_accepted_is_done_before_the_end(held, slow):
    slow.go.clear()
    batcher, _, found = held([("double", [i], 1) for i in range(5)])
    batcher.close()
    assert [one.result(5) for one in found] == [[2 * i] for i in range(5)]
    with pytest.raises(ClosedError):
        batcher.run("double", [1], [1])


def test_what_nobody_waits_for_any_more_is_not_done(slow):
    batcher, gone = batcher_of({"double": slow}), threading.Event()

    def ask(items):
        CALLER.set(gone if items == [7, 8] else None)
        return batcher.run("double", items, [1] * len(items))

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, [1])
        assert slow.began.wait(10)
        left, stays = pool.submit(ask, [7, 8]), pool.submit(ask, [3])
        while len(batcher._jobs) < 2:
            time.sleep(0.001)
        gone.set()
        slow.go.set()
        assert (first.result(), stays.result()) == ([2], [6])
        with pytest.raises(GoneError):
            left.result()
    assert slow.steps == [[1], [3]]
    assert batcher.waiting == 0
    batcher.close()


def spent_until_the_last_query(queries, stored, *, alone=0):
    """Return what steps of each kind took until the last query, and the longest one in the background.

    All wait from the first step on, so that the order is the batcher's choice alone; before, so many queries are `alone`.
    """
    steps, free = [], threading.Event()

    def work(kind, seconds):
        def compute(items):
            free.wait(10)
            begin = time.perf_counter()
            time.sleep(seconds)
            steps.append((kind, time.perf_counter() - begin))
            return items

        return compute

    batcher = batcher_of({"query": work("query", 0.02), "stored": work("stored", 0.01)}, together=False)
    free.set()
    for number in range(alone):
        batcher.run("query", [number], [1])
    free.clear()
    steps.clear()
    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(batcher.run, "query", [number], [1]) for number in range(queries)]
        adding = pool.submit(batcher.run, "stored", list(range(stored)), [1] * stored, background=True)
        while batcher.waiting < queries + stored:
            time.sleep(0.001)
        free.set()
        assert [query.result() for query in asked] == [[number] for number in range(queries)]
        last = max(i for i, (kind, _) in enumerate(steps) if kind == "query")
        assert adding.result() == list(range(stored))
    batcher.close()
    before = steps[: last + 1]
    spent = {kind: sum(seconds for each, seconds in before if each == kind) for kind in ("query", "stored")}
    return spent, max((seconds for kind, seconds in before if kind == "stored"), default=0.0)


def test_the_background_waits_for_everybody_else_and_has_a_share_of_the_time():
    spent, longest = spent_until_the_last_query(60, 5_000)
    assert 0 < spent["stored"] <= 0.16 * spent["query"] + longest


def test_time_in_which_nothing_waited_in_the_background_is_not_made_up_for():
    """The share of the 1.2 seconds alone would be eighteen steps."""
    spent, longest = spent_until_the_last_query(10, 5_000, alone=60)
    assert spent["stored"] <= 0.16 * spent["query"] + longest


def test_a_step_in_the_background_is_short():
    sizes = []

    def compute(items):
        time.sleep(0.001 * len(items))
        sizes.append(len(items))
        return items

    batcher = batcher_of({"stored": compute})
    batcher.run("stored", list(range(3_000)), [1] * 3_000, background=True)
    batcher.close()
    assert max(sizes[5:]) <= 200, "about 50 ms, at a thousand a second"
    assert sum(sizes) == 3_000
