"""The values for metadata of what a pickle holds: dates, UUIDs, decimals, paths, sets, tuples and numpy's scalars."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import count
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import TypeAdapter

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.importers.pickle_reader import SET, ZONE_OF_KEY, Call, Name

_MOST_VALUES = 2**20  # of one document's metadata: lists that hold the same list twice double at each level
_FROZENSET = ("builtins", "frozenset")
_BYTES = {("builtins", "bytes"), ("_codecs", "encode")}  # the latter in protocol 2
_TIMEDELTA, _TIMEZONE, _DTYPE = ("datetime", "timedelta"), ("datetime", "timezone"), ("numpy", "dtype")
_DURATIONS = TypeAdapter(timedelta)
_NUMPY_TYPE = re.compile(r"[biuf][1248]|U\d+")
_FOLD = 0x80  # the bit that says that a clock was put back: of the month, or of the hour where there is no date


def json_value(value: object, name: str) -> Any:
    """Return the value for metadata of what `read_pickle` returned.

    Dates stay dates, and times with a date keep the offset of their zone; times of a day and durations become ISO 8601
    strings; UUIDs, decimals and paths strings; sets sorted lists; tuples lists; numpy's scalars numbers and strings. Raises
    `InputError` naming what JSON can't hold, and `ValueError`, `TypeError`, `LookupError` or `ArithmeticError` for a value
    that was never pickled.
    """
    return _converted(value, name, count(1))


def _converted(value: Any, name: str, values: Iterator[int]) -> Any:
    if next(values) > _MOST_VALUES:
        raise InputError(f"{name}: the document has more than {_MOST_VALUES} values in its metadata")
    if isinstance(value, dict):
        return {key: _converted(item, f"{name}[{key!r:.50}]", values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_converted(item, f"{name}[{i}]", values) for i, item in enumerate(value)]
    if isinstance(value, Call) and value.callee in (SET, _FROZENSET):
        return _sorted([_converted(item, name, values) for item in _set_items(*value.arguments)])
    if isinstance(value, Call) and value.callee in _CONVERSIONS:
        return _CONVERSIONS[value.callee](value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    kind = ".".join(value.callee) if isinstance(value, Call) else type(value).__name__
    kind = "bytes" if kind == "_codecs.encode" else kind.removeprefix("builtins.")
    raise InputError(f"{name}: JSON can't hold {kind}; save the store with text or numbers in their place")


def _set_items(items: list[Any] | tuple[()] = ()) -> list[Any] | tuple[()]:
    return items


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:  # of several kinds
        return sorted(items, key=lambda item: json.dumps(item, default=str))


def _arguments(call: Call) -> tuple[Any, ...]:
    if call.state is not None:
        raise ValueError(f"a {'.'.join(call.callee)} with a state")
    return call.arguments


def _bytes(value: Any) -> bytes:
    """Return bytes, which protocol 2 has as a text to encode."""
    if isinstance(value, Call) and value.callee in _BYTES:
        text, encoding = _arguments(value)
        if encoding != "latin1":
            raise ValueError(f"bytes encoded as {encoding}")
        return bytes(text.encode("latin-1"))
    if not isinstance(value, bytes):
        raise TypeError(f"a {type(value).__name__} in place of bytes")
    return value


def _timedelta(call: Call) -> timedelta:
    if call.callee != _TIMEDELTA:
        raise TypeError(f"a {'.'.join(call.callee)} in place of a timedelta")
    return timedelta(*_arguments(call))


def _zone(call: Call | None) -> tzinfo | None:
    if call is None:
        return None
    arguments = _arguments(call)
    if call.callee == ZONE_OF_KEY:
        return ZoneInfo(arguments[0])
    if call.callee != _TIMEZONE:
        raise TypeError(f"a {'.'.join(call.callee)} in place of a time zone")
    return timezone(_timedelta(arguments[0]))


def _date(call: Call) -> date:
    (data,) = _arguments(call)
    high, low, month, day = _bytes(data)
    return date(high << 8 | low, month, day)


def _time(call: Call) -> str:
    data, *zone = _arguments(call)
    hour, minute, second, *microsecond = _bytes(data)
    return time(
        hour & ~_FOLD, minute, second, int.from_bytes(microsecond), _zone(*zone or [None]), fold=hour // _FOLD
    ).isoformat()


def _datetime(call: Call) -> datetime:
    data, *zone = _arguments(call)
    high, low, month, day, hour, minute, second, *microsecond = _bytes(data)
    when = datetime(
        high << 8 | low,
        month & ~_FOLD,
        day,
        hour,
        minute,
        second,
        int.from_bytes(microsecond),
        _zone(*zone or [None]),
        fold=month // _FOLD,
    )
    return datetime.fromisoformat(when.isoformat())


def _duration(call: Call) -> str:
    return str(_DURATIONS.dump_python(_timedelta(call), mode="json"))


def _uuid(call: Call) -> str:
    return str(UUID(int=call.state["int"]))


def _decimal(call: Call) -> str:
    (text,) = _arguments(call)
    return str(Decimal(text))


def _posix_path(call: Call) -> str:
    return str(PurePosixPath(*_arguments(call)))


def _windows_path(call: Call) -> str:
    return str(PureWindowsPath(*_arguments(call)))


def _numpy_scalar(call: Call) -> Any:
    dtype, data = _arguments(call)
    if dtype.callee != _DTYPE or not _NUMPY_TYPE.fullmatch(dtype.arguments[0]):
        raise ValueError(f"a numpy scalar of type {dtype.arguments[0]}, which is no number")
    (value,) = np.frombuffer(_bytes(data), np.dtype(dtype.state[1] + dtype.arguments[0]))
    return value.item()


_CONVERSIONS: dict[Name, Callable[[Call], Any]] = {
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "datetime"): _datetime,
    _TIMEDELTA: _duration,
    ("uuid", "UUID"): _uuid,
    ("decimal", "Decimal"): _decimal,
    **{(m, n): _posix_path for m in ("pathlib", "pathlib._local") for n in ("PosixPath", "PurePosixPath")},
    **{(m, n): _windows_path for m in ("pathlib", "pathlib._local") for n in ("WindowsPath", "PureWindowsPath")},
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
ADMITTED: frozenset[Name] = frozenset({*_CONVERSIONS, *_BYTES, SET, _FROZENSET, _TIMEZONE, _DTYPE})
"""The names in pickles of values that JSON can hold, in some form."""
