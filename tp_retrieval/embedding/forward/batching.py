"""Batches of rows of similar length, and smaller batches where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tp_retrieval.embedding.forward.tokens import Row
from tp_retrieval.embedding.model.device import is_out_of_memory
from tp_retrieval.errors import OutOfMemoryError, UnsupportedModelError

_TOKEN_BUDGET = {"cpu": 2048}  # padded tokens a batch, as many as two cores keep in cache
_ACCELERATOR_TOKEN_BUDGET = 32768

_NOT_ON_MPS = "the device mps lacks an operation of this model; set PYTORCH_ENABLE_MPS_FALLBACK=1, or device='cpu'"

Result = TypeVar("Result")


class Batching:
    """Batches of at most `budget` padded tokens, a number that depends on the device."""

    def __init__(self, device: torch.device) -> None:
        self.budget = _TOKEN_BUDGET.get(device.type, _ACCELERATOR_TOKEN_BUDGET)

    def run(self, rows: Sequence[Row], forward: Callable[[list[Row]], Result]) -> Iterator[tuple[list[int], Result]]:
        """Yield the row numbers of each batch and the result of `forward`, longest rows first.

        Where a batch does not fit in memory, the budget becomes half of it, for good; a single row that does not fit raises
        `OutOfMemoryError`, an operation that mps does not have `UnsupportedModelError`.
        """
        waiting = batches(rows, self.budget)[::-1]
        while waiting:
            group = waiting.pop()
            batch = [rows[i] for i in group]
            try:
                result = forward(batch)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, NotImplementedError) and "MPS" in str(error):
                    raise UnsupportedModelError(_NOT_ON_MPS) from error
                if not is_out_of_memory(error):
                    raise
                if len(group) == 1:
                    raise OutOfMemoryError(
                        f"a text of {len(batch[0].ids)} tokens does not fit in memory alone; lower max_tokens"
                    ) from error
                self.budget = min(self.budget, len(group) // 2 * length(batch[0]))
                left = [*group, *(i for planned in reversed(waiting) for i in planned)]
                waiting = [[left[i] for i in part] for part in batches([rows[i] for i in left], self.budget)][::-1]
                continue
            yield group, result


def batches(rows: Sequence[Row], budget: int) -> list[list[int]]:
    """Group row numbers so that rows of similar length share a batch of at most `budget` padded tokens, longest first."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].prefix, len(rows[i].ids)), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        group = groups[-1] if groups else []
        if group and rows[group[0]].prefix == rows[i].prefix and (len(group) + 1) * length(rows[group[0]]) <= budget:
            group.append(i)
        else:
            groups.append([i])
    return groups


def length(row: Row) -> int:
    """Return the number of a row's tokens in a forward pass."""
    return len(row.ids) - row.prefix
