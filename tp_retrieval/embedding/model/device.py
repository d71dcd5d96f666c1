"""Devices and floating-point types: those asked for, the default ones, and the memory of a device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache

import psutil
import torch

from tp_retrieval.errors import InputError

_PLACEMENTS = ("auto", "balanced", "balanced_low_0", "sequential", "disk")
_DTYPES = ("float32", "bfloat16", "float16", "float64")


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the torch type of a name; "auto" is bfloat16 where that is faster, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if _bfloat16_pays(device.type) else torch.float32
    if dtype not in _DTYPES:
        raise InputError(f"dtype: {dtype!r} must be auto, float32, bfloat16 or float16")
    named: torch.dtype = getattr(torch, dtype)
    return named


def resolve_device(device: str | None) -> torch.device:
    """Return the torch device of a name, by default the first that there is of cuda, mps and cpu.

    Raises `InputError` for a device that this machine or this torch does not have.
    """
    available = devices()
    if device is None:
        return torch.device(available[0].partition(":")[0])
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: {device!r} is none; there are {', '.join(available)}") from error
    if not _is_available(resolved, available):
        without_cuda = resolved.type == "cuda" and torch.version.cuda is None
        why = " (this torch was built without CUDA)" if without_cuda else ""
        raise InputError(f"device: {device!r} is not available here{why}; there are {', '.join(available)}")
    return resolved


def _is_available(device: torch.device, available: list[str]) -> bool:
    if device.type == "cuda":
        return f"cuda:{device.index or 0}" in available
    if device.type in ("cpu", "mps"):
        return device.type in available and not device.index
    try:
        return device.type != "meta" and bool(torch.get_device_module(device.type).is_available())
    except (RuntimeError, ImportError, AttributeError, AssertionError):  # a kind that this torch was built without
        return False


def check_device_map(device_map: object) -> None:
    """Raise `InputError` if an argument `device_map` of transformers is none, or names a device that is not here."""
    for device in list(device_map.values()) if isinstance(device_map, Mapping) else [device_map]:
        if device is None or device in _PLACEMENTS or isinstance(device, (torch.device, int)):
            continue
        if not isinstance(device, str):
            raise InputError(f"device_map: {device_map!r} must be auto, a device, or devices by the names of modules")
        resolve_device(device)


def devices() -> list[str]:
    """Return the names of the devices of this machine that torch can use, the fastest first."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch says that memory ran out."""
    messages = ("can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(message in str(error) for message in messages)


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
