"""Metadata as JSON: dates and times stand in it as `{"$date": "2024-05-01T12:00:00+02:00"}`, and come back as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tp_retrieval.errors import InputError

DATE = "$date"
"""The only key of an object that stands for a date or a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON; raise `TypeError` or `ValueError` for what JSON can't hold."""
    return json.dumps(metadata, allow_nan=False, sort_keys=True, ensure_ascii=False, default=tagged)


def from_json(text: str) -> Any:
    """Return the value of metadata's JSON; raise `ValueError`, `RecursionError` or `TypeError` where it is none."""
    return json.loads(text, object_hook=untagged)


def with_dates(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON has them with the dates and times that objects in them stand for."""
    dated: dict[str, Any] = from_json(json.dumps(metadata))
    return dated


def untagged(value: dict[str, Any]) -> Any:
    """Return the date or time that an object stands for, the object itself if it stands for none."""
    if len(value) != 1 or not isinstance(value.get(DATE), str):
        return value
    text = value[DATE]
    try:
        return datetime.fromisoformat(text) if len(text) > len("2024-05-01") else date.fromisoformat(text)
    except ValueError:
        return value


def iso_of(value: object) -> str:
    """Return a date or time as ISO 8601 has it, for JSON that people read; raise `TypeError` for anything else."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def microseconds(value: date) -> int:
    """Return the microseconds from 1970 to a time, or to the midnight that begins a date; UTC where no zone is given."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // timedelta(microseconds=1)


def check_key(key: str, name: str) -> None:
    """Raise `InputError` for the key that stands for dates."""
    if key == DATE:
        raise InputError(f"{name}: the key {DATE!r} stands for a date in the index; give a datetime or date itself")


def tagged(value: object) -> dict[str, str]:
    """Return a date or time as the object that stands for it; raise `TypeError` for anything else."""
    return {DATE: iso_of(value)}
