"""Raise inside a call at its Nth line or its Nth SQL statement, N = 1, 2, ... until the call gets through.

Deterministic, unlike a signal at a random moment: every line of the package that the call runs is tried once.
"""

import contextlib
import dis
import gc
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import tp_retrieval
from tp_retrieval.sqlite.fork_safety import _unless_busy

PACKAGE = str(Path(tp_retrieval.__file__).parent)


class SignalError(Exception):
    """What a signal handler raises."""


def _in_handler(*_):
    raise SignalError


def keyboard_interrupt():
    raise KeyboardInterrupt


def memory_error():
    raise MemoryError


def out_of_a_signal_handler():
    before = signal.signal(signal.SIGUSR1, _in_handler)
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


ERRORS = (KeyboardInterrupt, MemoryError, SignalError)
RAISERS = (keyboard_interrupt, memory_error, out_of_a_signal_handler)


class Count:
    """Count down to the moment that is hit."""

    def __init__(self, nth, fail):
        self.left, self.fail = nth, fail

    def step(self):
        self.left -= 1
        if self.left == 0:
            self.fail()


@contextmanager
def at_line(count, passes=sys.maxsize):
    """Raise at the Nth line of the package that this thread runs; of a line in a loop, so many passes count.

    The lines of `contextlib` count where the package enters or leaves a block through it. Moments at which no signal is
    handled do not, since Python handles them in calls: a `try:`, and the end of a `with` block before `__exit__` is called,
    so that `with lock` always releases. The garbage collector is off, since it would add lines by chance.
    """
    seen = Counter()

    def trace(frame, event, _):
        if not (_is_ours(frame) or (frame.f_code.co_filename == contextlib.__file__ and _is_ours(frame.f_back))):
            return None
        if event == "line" and frame.f_lasti not in _without_calls(frame.f_code):
            place = frame.f_code, frame.f_lineno, *(() if _is_ours(frame) else (frame.f_back.f_code, frame.f_back.f_lineno))
            seen[place] += 1
            if seen[place] <= passes:
                count.step()
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()


@contextmanager
def at_call(count):
    """Raise when the Nth call of something in C returns, where Python handles signals."""

    def trace(_, event, __):
        if event == "c_return":
            count.step()

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        yield
    finally:
        sys.setprofile(before)


def _is_ours(frame):
    return frame is not None and frame.f_code.co_filename.startswith(PACKAGE)


@cache
def _without_calls(code):
    """Return the offsets of a function where a line begins at which no signal is handled."""
    if code is _unless_busy.__code__:  # which tests/sqlite/test_fork_safety.py interrupts at calls
        return range(len(code.co_code))
    steps = list(dis.get_instructions(code))
    offsets = {step.offset for step in steps if step.opname == "NOP"}
    for step, *arguments in zip(steps, steps[1:], steps[2:], steps[3:], strict=False):
        first = arguments if step.opname == "SWAP" else [step, *arguments[:2]]  # a value that is returned is under these
        if all(one.opname == "LOAD_CONST" and one.argval is None for one in first):
            offsets.add(step.offset)  # of __exit__(None, None, None)
    return offsets


@contextmanager
def at_statement(database, count, after):
    """Raise before or after the Nth SQL statement of a database."""
    real = database._connection
    database._connection = _Statements(real, count, after)
    try:
        yield
    finally:
        database._connection = real


class _Statements:
    def __init__(self, real, count, after):
        self._real, self._count, self._after = real, count, after

    def execute(self, sql, values=()):
        return self._run(self._real.execute, sql, values)

    def executemany(self, sql, rows):
        return self._run(self._real.executemany, sql, rows)

    def _run(self, work, *arguments):
        if not self._after:
            self._count.step()
        done = work(*arguments)
        if self._after:
            self._count.step()
        return done

    def __getattr__(self, name):
        return getattr(self._real, name)


def is_free(lock):
    """Return whether another thread can acquire a lock at once."""
    with ThreadPoolExecutor(1) as another:
        acquired = another.submit(lock.acquire, blocking=False).result()
        if acquired:
            another.submit(lock.release).result()
    return acquired
