"""One list embedded by several processes, a GPU or a share of the cores each, through torch's own way to start them.

A process loads the model when it gets its first texts, and ends with the call, or when the process that started it does.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing

from tp_retrieval.embedding.model.backbone import Backbone, n_blocks_of
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError, WorkerError
from tp_retrieval.types import Float32Array

if TYPE_CHECKING:
    from tp_retrieval.embedding.embedder import Embedder, Role

_SHARES = 4  # parts of the list each process gets, so that a slow one does not keep all waiting
_FEWEST = 16  # texts of a part

Part = tuple[Float32Array, list[int]]
"""Raw vectors `(n, dim)`, and how many tokens of each text were cut off."""


@dataclass(frozen=True)
class Worker:
    """What a process needs to load the same embedder."""

    source: ModelSource
    recipe: Recipe
    device: str
    dtype: torch.dtype
    threads: int

    @classmethod
    def like(cls, embedder: Embedder, processes: int) -> Worker:
        """Return the worker of an embedder; raise `InputError` if another process can't load its model."""
        backbone = embedder.backbone
        if backbone.source is None:
            raise InputError("processes: the model was given as an object, which another process can't load; name it")
        device = str(backbone.device)
        threads = max(1, torch.get_num_threads() // processes)
        return cls(backbone.source, embedder.recipe.raw(), device, backbone.dtype, threads)

    def load(self, number: int) -> Embedder:
        """Load the embedder; of several GPUs the process takes the one of its number."""
        from tp_retrieval.embedding.embedder import Embedder

        torch.set_num_threads(self.threads)
        device = self.device
        if device.startswith("cuda"):
            device = f"cuda:{number % torch.cuda.device_count()}"
        config = self.source.config()
        depth = self.recipe.depth(n_blocks_of(config))
        return Embedder(Backbone.load(self.source, config, depth, device=device, dtype=self.dtype), self.recipe)


def embedded(
    embedder: Embedder, texts: Sequence[str], role: Role, processes: int
) -> Generator[tuple[int, Part], None, None]:
    """Yield the place and the raw vectors of parts of a list, in order.

    Raises what a process raised, and `WorkerError` if one was killed.
    """
    worker = Worker.like(embedder, processes)
    size = max(_FEWEST, -(-len(texts) // (processes * _SHARES)))
    context = torch.multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(worker, context.Value("i", 0)))
    try:
        parts: list[Future[Part]] = [
            pool.submit(_embed, list(texts[begin : begin + size]), role) for begin in range(0, len(texts), size)
        ]
        for i, part in enumerate(parts):
            yield i * size, part.result()
    except BrokenProcessPool as error:
        raise WorkerError(f"one of {processes} processes ended before its texts were embedded: {error}") from error
    finally:
        for process in list((pool._processes or {}).values()):  # Python 3.14 calls this terminate_workers
            process.terminate()
        pool.shutdown(cancel_futures=True)  # which waits for them


_worker: Worker
_number: int
_loaded: Embedder | None = None


def _begin(worker: Worker, counter: Any) -> None:
    """Remember what to load, and end when the parent ends."""
    global _worker, _number
    with counter.get_lock():
        _worker, _number = worker, counter.value
        counter.value += 1
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _embed(texts: list[str], role: Role) -> Part:
    global _loaded
    if _loaded is None:
        _loaded = _worker.load(_number)
    return _loaded.raw_with_cuts(texts, role)
