"""A life of an index, step by step, and what the index must hold after each step, by a dict and numpy.

    python -m tests.reliability.scenario ROOT FOLDER TRACE SEED STEPS [PRAGMA]

lives it under a trace of what happens below ROOT: the index is made in FOLDER, the events are written to TRACE at the end.
An index that is in FOLDER already is opened and closed.
"""

import itertools
import random
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from tests.reliability.tracing import Trace
from tests.toy import ToyWithStretches
from tp_retrieval import Document, Index

WORDS = ("river", "stone", "cat", "sea", "green", "house")
FIT_AT = {"center": 64, "within:4": 8}  # documents from which on a map is fitted; for within those of several stretches
CHECKPOINTS = (6, 1000)  # pages in the log after which SQLite moves them into the database


@dataclass(frozen=True)
class Step:
    """One call of the index, or of a second one that the same process opens and closes beside it."""

    what: str
    documents: tuple[Document, ...] = ()
    ids: tuple[str, ...] = ()


RECOVERY = (Step("open"), Step("close"))


@dataclass(frozen=True)
class State:
    """What an index holds: documents by id in the order of adding, and the map of their vectors: a mean and a matrix."""

    documents: dict[str, Document] = field(default_factory=dict)
    kind: str | None = None
    fitted_on: int = 0
    mean: np.ndarray | None = None
    matrix: np.ndarray | None = None

    def after(self, step):
        left = {id_: document for id_, document in self.documents.items() if id_ not in step.ids}
        if step.what == "add":
            replaced = {document.id for document in step.documents}
            left = {id_: document for id_, document in left.items() if id_ not in replaced}
            new = replace(self, documents=left | {document.id: document for document in step.documents})
            due = self.mean is None or (self.kind == "within:4" and len(new.documents) >= 2 * self.fitted_on)
            return new.fitted() if due else new
        if step.what == "clear":
            return replace(self, documents={}, fitted_on=0, mean=None, matrix=None)
        if step.what == "rebuild":
            return replace(self, fitted_on=0, mean=None, matrix=None).fitted()
        return replace(self, documents=left)

    def fitted(self):
        count = len(self.documents)
        suited = count if self.kind == "center" else sum(len(d.text.split()) > 2 for d in self.documents.values())
        if self.kind is None or suited < FIT_AT[self.kind]:
            return self
        raw = vectors(self.documents.values())
        matrix = within_matrix(raw, self.documents.values()) if self.kind == "within:4" else None
        return replace(self, fitted_on=count, mean=raw.mean(axis=0), matrix=matrix)


def within_matrix(raw, documents):
    """Return the map of method.md 5b that keeps four directions, by numpy."""
    stretches = [ToyWithStretches().stretches(document.text).astype(np.float64) for document in documents]
    deviations = np.concatenate([rows - rows.mean(axis=0) for rows in stretches if len(rows) > 1])
    values, vectors_ = np.linalg.eigh(deviations.T @ deviations / len(deviations))
    shrinking = vectors_ / np.sqrt(values + 0.003 * values.max())
    return shrinking @ np.linalg.eigh(np.cov(((raw - raw.mean(axis=0)) @ shrinking).T, bias=True))[1][:, -4:]


@cache
def vector(text):
    return ToyWithStretches().embed_documents([text])[0].astype(np.float64)


def vectors(documents):
    return np.array([vector(document.text) for document in documents])


def plan(seed, count):
    """Return the steps of a life; two of three seeds' are those of a larger index, with one of the maps."""
    dice, map_ = random.Random(seed), (None, "center", "within:4")[seed % 3]
    ids = [f"id{i}" for i in range(90 if map_ else 30)]
    numbers = itertools.count()
    unique = (lambda: (f"n{next(numbers)}",)) if map_ == "within:4" else tuple  # equal texts share stretches
    weights = {"add": 8, "delete": 3, "reopen": 3, "look": 2, "rebuild": 1, "clear": 0.3}
    steps = [Step("create"), *([Step("add", documents(dice, ids[:70], unique)), Step(map_)] if map_ else [])]
    while len(steps) < count:
        what = dice.choices(list(weights), list(weights.values()))[0]
        if what == "add":
            steps.append(Step("add", documents(dice, dice.sample(ids, dice.choice((1, 2, 5, 20))), unique)))
        else:
            steps.append(Step(what, (), tuple(dice.sample(ids, 4)) if what == "delete" else ()))
    return [*steps[: count - 1], Step("close")]


def documents(dice, ids, unique=tuple):
    """Return new documents, which replace older ones; now and then the first is longer than a page.

    `unique` gives a last word for each text.
    """
    lengths = [dice.choice((2, 3, 4, 2000)), *(3 for _ in ids[1:])]
    texts = (" ".join([*dice.choices(WORDS, k=length), *unique()]) for length in lengths)
    return tuple(Document(text, {"by": len(ids)}, id_) for text, id_ in zip(texts, ids, strict=True))


def states(steps):
    """Return what the index must hold before the first step and after each: None before it is made."""
    found = [None]
    for step in steps:
        before = found[-1]
        if step.what == "create":
            found.append(State())
        elif step.what in FIT_AT:
            found.append(replace(before, kind=step.what).fitted())
        else:
            found.append(before.after(step))
    return found


class Life:
    """Do the steps to a real index."""

    def __init__(self, folder, pragmas):
        self.folder = folder
        self.pragmas = pragmas
        self.index = self.second = None

    def opened(self, way=Index.open):
        index = way(self.folder, ToyWithStretches())
        for pragma in self.pragmas:
            index._store.database.execute(f"PRAGMA {pragma}")
        return index

    def do(self, step):
        if step.what == "create":
            self.index = self.opened(Index.create)
        elif step.what in ("open", "reopen"):
            if self.index is not None:
                self.index.close()
            self.index = self.opened()
        elif step.what == "look":
            self.close_second()
        elif step.what in FIT_AT:
            self.index.rebuild(postprocess=step.what)
        elif step.what == "add":
            self.index.add(step.documents)
        elif step.what == "delete":
            self.index.delete(step.ids)
        else:
            getattr(self.index, step.what)()

    def close_second(self):
        """Open a second index beside the first, or close it."""
        if self.second is None:
            self.second = self.opened()
        else:
            self.second.close()
            self.second = None


def main():
    root, folder, into, seed, count, *pragmas = sys.argv[1:]
    trace = Trace(Path(root))
    life = Life(Path(folder), [f"wal_autocheckpoint = {CHECKPOINTS[int(seed) // 2 % 2]}", *pragmas])
    there = (life.folder / "index.sqlite").exists()
    for step in RECOVERY if there else plan(int(seed), int(count)):
        trace.note("begin")
        life.do(step)
        trace.note("acknowledge")
    Path(into).write_text("".join(f"{event.line()}\n" for event in trace.events))


if __name__ == "__main__":
    main()
