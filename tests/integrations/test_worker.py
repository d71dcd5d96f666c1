"""Asynchronous methods made of synchronous ones."""

import threading

from tp_retrieval.integrations.worker import Worker, asynchronous


class Adapter:
    def __init__(self):
        self._worker = Worker()

    def scaled(self, value, *, by=2):
        return value * by, threading.current_thread().name

    ascaled = asynchronous(scaled)


class Overriding(Adapter):
    def scaled(self, value, *, by=2):
        return value * by + 1, ""


async def test_a_method_runs_on_the_adapters_thread_and_its_override_is_called():
    value, thread = await Adapter().ascaled(4, by=3)
    assert value == 12
    assert thread.startswith("tp-retrieval")
    assert await Overriding().ascaled(4) == (9, "")
