"""The table of prepending in German and in English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tables.open_questions.scopes import two_by_two

TABLES: Mapping[str, Callable[[Any], str]] = {"two-by-two": two_by_two}
