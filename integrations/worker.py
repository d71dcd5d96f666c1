"""One thread per adapter for its asynchronous methods, so that a model never blocks a shared executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Worker:
    """Run calls one after the other on a thread that the first call starts."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tp-retrieval")

    def __reduce__(self) -> tuple[type[Worker], tuple[()]]:
        """Pickle nothing: another process has a thread of its own."""
        return Worker, ()

    async def run(self, call: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Await the result of a call on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))


class HasWorker(Protocol):
    """An adapter with a thread for its asynchronous methods."""

    _worker: Worker


Adapter = TypeVar("Adapter", bound=HasWorker)


def asynchronous(
    method: Callable[Concatenate[Adapter, Parameters], Result],
) -> Callable[Concatenate[Adapter, Parameters], Coroutine[object, object, Result]]:
    """Return the asynchronous form of a method, which awaits it, or its override, on the adapter's thread."""

    @wraps(method)
    async def call(self: Adapter, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        bound: Callable[..., Result] = getattr(self, method.__name__)
        return await self._worker.run(bound, *args, **kwargs)

    return call
