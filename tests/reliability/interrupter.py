"""Raise inside a call at its Nth line or its Nth SQL statement, N = 1, 2, ... until the call gets through.

Deterministic, unlike a signal at a random moment: every line of the package that the call runs is tried once.
"""

import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import tp_retrieval

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
    """Raise at the Nth line of the package that this thread runs; of a line in a loop, so many passes count."""
    seen = Counter()

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            place = frame.f_code, frame.f_lineno
            seen[place] += 1
            if seen[place] <= passes:
                count.step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


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
