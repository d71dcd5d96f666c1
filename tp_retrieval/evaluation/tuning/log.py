"""The log of a tuning run: what each prompt candidate reached, one JSON object a line, so that a stopped run can go on."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate
from tp_retrieval.evaluation.tuning.view_search import ViewCandidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptResult:
    """What a prompt candidate reached on a sample (`full` False) or on all data: its best views, and every exit's score.

    `start` are the views of the recipe that tuning began with, for the candidate with its prompt; `frontier` is that of
    `ViewSearchResult`.
    """

    prompt: PromptCandidate
    full: bool
    seconds: float
    best: list[ViewCandidate]
    curves: dict[str, dict[str, float]]
    start: ViewCandidate | None = None
    frontier: list[ViewCandidate] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The best views' score on the items that recipes are chosen by."""
        return self.best[0].score


class TuningLog:
    """Results by key, in memory and, unless `file` is None, appended to a JSONL file.

    A line cut short by a crash is removed, a line that holds no result is passed over with a warning.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._results = {} if file is None or not file.exists() else _read(file)

    def get(self, key: str) -> PromptResult | None:
        """Return the result of a key, None if there is none."""
        return self._results.get(key)

    def append(self, key: str, result: PromptResult) -> None:
        """Store a result, in the file with its next line."""
        self._results[key] = result
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fields = asdict(result)
        record = {"key": key, "arm": fields.pop("prompt"), **fields}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, default=lambda array: array.tolist()) + "\n")


def _read(file: Path) -> dict[str, PromptResult]:
    results: dict[str, PromptResult] = {}
    *lines, cut_short = file.read_text(encoding="utf-8", errors="replace").split("\n")
    if cut_short:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for number, line in enumerate(lines, 1):
        try:
            key, result = _result(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s, line %d: no result of a prompt candidate; it is measured again", file, number)
            continue
        results[key] = result
    return results


def _result(record: dict[str, Any]) -> tuple[str, PromptResult]:
    key, prompt, start = record.pop("key"), record.pop("arm"), record.pop("start")
    prompt["prepend"] = None if prompt["prepend"] is None else Prepend(**prompt["prepend"])
    best, frontier = ([_views(views) for views in record.pop(name, [])] for name in ("best", "frontier"))
    start = None if start is None else _views(start)
    return key, PromptResult(PromptCandidate(**prompt), best=best, start=start, frontier=frontier, **record)


def _views(record: dict[str, Any]) -> ViewCandidate:
    views = tuple(View(**view) for view in record["views"])
    return ViewCandidate(views, record["dense_weight"], record["score"], np.array(record["signal"]))
