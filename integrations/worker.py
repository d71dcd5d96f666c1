"""One thread per adapter for its asynchronous methods, so that a model never blocks a shared executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Worker:
    """Run calls one after the other on a thread that the first call starts."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tp-retrieval")

    async def run(self, call: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Await the result of a call on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))
