"""One list of texts embedded by several processes, each with a GPU or a share of the cores, started by torch.

A process loads the model when it gets its first texts, and ends with the call, or with its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.multiprocessing

from tp_retrieval.errors import WorkerError
from tp_retrieval.types import Float32Array, Role

_SHARES = 4  # parts of the list for each process, so that a slow one does not delay all
_FEWEST = 16  # texts of a part

Part = tuple[Float32Array, list[int]]
"""Raw vectors `(n, dim)`, and the number of tokens of each text that were cut off."""


class RawEmbedder(Protocol):
    """An embedder as a worker needs it."""

    def raw_with_cuts(self, texts: Sequence[str], role: Role) -> Part:
        """Return raw vectors and cuts of texts."""


@dataclass(frozen=True)
class WorkerModel:
    """The model of every worker: `load(device)` returns the embedder, `device` is that of the parent."""

    load: Callable[[str], RawEmbedder]
    device: str
    threads: int

    def loaded(self, number: int) -> RawEmbedder:
        """Load the embedder; of several GPUs a worker takes the one of its number."""
        torch.set_num_threads(self.threads)
        is_gpu = self.device.startswith("cuda")
        return self.load(f"cuda:{number % torch.cuda.device_count()}" if is_gpu else self.device)


def embedded(
    load: Callable[[str], RawEmbedder], device: str, texts: Sequence[str], role: Role, processes: int
) -> Generator[tuple[int, Part], None, None]:
    """Yield the position and the raw vectors of parts of a list, in order; `load` must be picklable.

    Raises what a process raised, and `WorkerError` if one was killed.
    """
    model = WorkerModel(load, device, max(1, torch.get_num_threads() // processes))
    size = max(_FEWEST, -(-len(texts) // (processes * _SHARES)))
    context = torch.multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(model, context.Value("i", 0)))
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


_model: WorkerModel
_number: int
_embedder: RawEmbedder | None = None


def _begin(model: WorkerModel, counter: Any) -> None:
    """Remember what to load, and end with the parent."""
    global _model, _number
    with counter.get_lock():
        _model, _number = model, counter.value
        counter.value += 1
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _embed(texts: list[str], role: Role) -> Part:
    global _embedder
    if _embedder is None:
        _embedder = _model.loaded(_number)
    return _embedder.raw_with_cuts(texts, role)
