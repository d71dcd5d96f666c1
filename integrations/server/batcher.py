"""Dynamic batching: every half second one token-budgeted batch is filled round-robin across requests.

What may wait, such as documents that are added, is computed in the background: in short slices, when nobody else waits.

batcher = Batcher()
batcher.add("query", embedder.embed_queries)
batcher.run("query", ["a text"], costs=[5])      # from any thread; returns the results
batcher.close()                                  # after the accepted requests
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition, Event, Thread
from typing import Any

from tp_retrieval.integrations.server.errors import ClosedError, GoneError, OverloadedError

Work = Callable[[list[Any]], Iterable[Any]]

_STEP_SECONDS = 0.5  # how long a step should last: long enough to fill the processor, short enough to wait for
_FEWEST = 512  # tokens of a step, at least
_FIRST_RATE = 2 * _FEWEST / _STEP_SECONDS  # tokens a second, until the first step is measured
_PATIENCE = 0.1  # share of a step's time for which the next one waits for as many callers
_SLICE_SECONDS = 0.05  # how long a step in the background should last, which others wait for
_SHARE = 0.15  # of the time for the background while others wait
_SMOOTHING = 0.3  # share of the newest step in the measured speed


_GONE = "the client closed its connection"

CALLER: ContextVar[Event | None] = ContextVar("CALLER", default=None)
"""Set when the caller of the current thread has disconnected; its remaining items are dropped."""


def check_caller() -> None:
    """Raise `GoneError` if the caller of this thread has disconnected."""
    caller = CALLER.get()
    if caller is not None and caller.is_set():
        raise GoneError(_GONE)


@dataclass(eq=False)
class _Job:
    """The items of one caller, and their results."""

    kind: str
    items: Sequence[Any]
    costs: Sequence[int]
    background: bool = False
    results: list[Any] = field(default_factory=list)
    taken: int = 0
    error: BaseException | None = None
    caller: Event | None = field(default_factory=CALLER.get)
    done: Event = field(default_factory=Event)

    @property
    def finished(self) -> bool:
        return self.error is not None or len(self.results) == len(self.items)


class Batcher:
    """Batches of callers' items, computed on one thread. Each takes items of one kind from all waiting callers in turn.

    `waiting` bounds the tokens that wait. With `together` False each step serves one caller. `observe` is called with each
    step's number of items and seconds.
    """

    def __init__(
        self,
        *,
        waiting: int = 1_000_000,
        together: bool = True,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._work: dict[str, Work] = {}
        self._limit = waiting
        self._together = together
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._owed = 0.0  # seconds that the background may have by its share
        self._rates: dict[str, float] = {}  # tokens a second, by kind
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._loop, name="tp-retrieval-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Tokens that wait to be computed."""
        return self._waiting

    def add(self, kind: str, work: Work) -> None:
        """Add a kind of item and the function that computes a list of them, one result each."""
        self._work[kind] = work

    def run(self, kind: str, items: Sequence[Any], costs: Sequence[int], *, background: bool = False) -> list[Any]:
        """Return one result an item, in order; items are hashable, and `costs` are their tokens.

        In the `background` they are computed when nobody else waits, and in a small share of the time otherwise.
        Raises `OverloadedError` if too many tokens wait, and what the computation raises.
        """
        if not items:
            return []
        job, total = _Job(kind, items, costs, background), sum(costs)
        with self._changed:
            if self._closed:
                raise ClosedError("the server is going down")
            if self._waiting and self._waiting + total > self._limit:
                raise OverloadedError(f"{self._waiting} tokens are waiting, and no more than {self._limit} may; try later")
            self._waiting += total
            self._jobs.append(job)
            self._changed.notify()
        job.done.wait()
        if job.error is not None:
            raise job.error
        return job.results

    def close(self) -> None:
        """Finish the accepted items, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        before = 0, 0.0  # callers and seconds of the last step
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                if self._together and not all(job.background for job in self._jobs):
                    self._gather(*before)
                self._forget_gone()
                if not self._jobs:
                    continue
                taken = self._take()
            begin = time.perf_counter()
            self._step(taken)
            seconds = time.perf_counter() - begin
            if taken[0][0].background:
                self._owed = max(self._owed - seconds, 0.0)
            else:
                self._owe(_SHARE * seconds)
                before = len(taken), seconds
            self._settle(taken)
            del taken  # results may be large

    def _owe(self, seconds: float) -> None:
        """Add to what the background may have, if anything waits in it: what nobody asked for is not made up for later."""
        with self._changed:
            waits = any(job.background for job in self._jobs)
        self._owed = min(self._owed, _SLICE_SECONDS) + seconds if waits else 0.0

    def _settle(self, taken: Sequence[tuple[_Job, int]]) -> None:
        """Return results to callers whose items are all computed, and put the others back."""
        with self._changed:
            for job, count in taken:
                self._waiting -= sum(job.costs[job.taken - count : job.taken])
                if job.finished:
                    self._waiting -= sum(job.costs[job.taken :])
                    job.done.set()
                else:
                    self._jobs.append(job)  # behind later ones

    def _forget_gone(self) -> None:
        for job in [job for job in self._jobs if job.caller is not None and job.caller.is_set()]:
            self._jobs.remove(job)
            self._waiting -= sum(job.costs[job.taken :])
            job.error = GoneError(_GONE)
            job.done.set()

    def _gather(self, callers: int, seconds: float) -> None:
        """Wait a moment for as many callers as the last step had: those just answered are about to ask again."""
        self._changed.wait_for(lambda: len(self._jobs) >= callers or self._closed, _PATIENCE * seconds)

    def _take(self) -> list[tuple[_Job, int]]:
        """Remove jobs of one kind from the queue; return them with the number of items of this step."""
        first = self._next()
        kind, rate = first.kind, self._rates.get(first.kind, _FIRST_RATE)
        jobs = [job for job in self._jobs if job.kind == kind] if self._together else [first]
        budget = rate * _SLICE_SECONDS if first.background else max(_FEWEST, rate * _STEP_SECONDS)
        counts = dict.fromkeys(range(len(jobs)), 0)
        spent, open_ = 0, list(counts)
        while open_ and spent < budget:
            for i in list(open_):
                job = jobs[i]
                position = job.taken + counts[i]
                if position == len(job.items):
                    open_.remove(i)
                elif not spent or spent + job.costs[position] <= budget:
                    counts[i] += 1
                    spent += job.costs[position]
                else:
                    open_.remove(i)
        taken = [(jobs[i], count) for i, count in counts.items() if count]
        for job, count in taken:
            self._jobs.remove(job)
            job.taken += count
        return taken

    def _next(self) -> _Job:
        """Return the first job, of the background if nobody else waits or it has had less than its share."""
        waiting = {job.background: job for job in reversed(self._jobs)}
        behind = self._owed >= _SLICE_SECONDS
        return waiting[True] if True in waiting and (behind or False not in waiting) else waiting[False]

    def _step(self, taken: Sequence[tuple[_Job, int]]) -> None:
        begin = time.perf_counter()
        kind = taken[0][0].kind
        work = self._work[kind]
        items = [item for job, count in taken for item in job.items[job.taken - count : job.taken]]
        try:
            results = work(items)
        except Exception as error:
            if len(taken) > 1:
                for pair in taken:
                    self._step([pair])
            else:
                taken[0][0].error = error
            return
        rest = iter(results)
        for job, count in taken:
            job.results.extend(islice(rest, count))
        seconds = time.perf_counter() - begin
        costs = [cost for job, count in taken for cost in job.costs[job.taken - count : job.taken]]
        tokens = sum(dict(zip(items, costs, strict=True)).values())  # what several callers asked for was read once
        rate = self._rates.get(kind, _FIRST_RATE)
        self._rates[kind] = rate + _SMOOTHING * (tokens / max(seconds, 1e-6) - rate)
        if self._observe is not None:
            self._observe(len(items), seconds)
