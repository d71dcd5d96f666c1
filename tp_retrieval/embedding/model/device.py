"""The default device and floating-point type of a model."""

from __future__ import annotations

import time
from functools import cache

import torch

from tp_retrieval.errors import InputError


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the torch type of a name; "auto" is bfloat16 where that is faster, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if _bfloat16_pays(device.type) else torch.float32
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise InputError(f"dtype: {dtype!r} must be auto, float32, bfloat16 or float16")
    return named


def default_device() -> str:
    """Return cuda, mps or cpu, the first that is available."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def _bfloat16_pays(device: str) -> bool:
    """Return whether bfloat16 products are faster; on processors this is measured, once, in some milliseconds.

    A processor's flags do not say: AMX multiplies bfloat16 several times faster than float32, while AVX512_BF16
    without AMX was measured at half of float32's rate.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    operands = [torch.ones(512, 512), torch.ones(512, 512, dtype=torch.bfloat16)]
    times: list[list[float]] = [[], []]
    for _ in range(7):
        for matrix, spent in zip(operands, times, strict=True):
            begin = time.perf_counter()
            torch.mm(matrix, matrix)
            spent.append(time.perf_counter() - begin)
    return min(times[1]) < 0.8 * min(times[0])
