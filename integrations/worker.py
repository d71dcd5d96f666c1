"""One thread of an adapter's own for its asynchronous methods, so that a model never blocks a shared executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


class Worker:
    """Run calls one after the other on a thread that is started by the first."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "tp-retrieval")

    async def run(self, call: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Await the result of a call on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))
