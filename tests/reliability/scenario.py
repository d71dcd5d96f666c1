"""A life of an index, step by step, and what the index must hold after each step, by a dict and numpy.

    python -m tests.reliability.scenario ROOT FOLDER TRACE SEED STEPS [PRAGMA]

lives it under a trace of what happens below ROOT: the index is made in FOLDER, the events are written to TRACE at the end.
An index that is in FOLDER already is opened and closed.
"""

import random
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from tests.reliability.tracing import Trace
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index

WORDS = ("river", "stone", "cat", "sea", "green", "house")
FIT_AT = 64  # documents from which on an index that wishes for it is centred
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
    """What an index holds: documents by id in the order of adding, and the mean that is taken from their vectors."""

    documents: dict[str, Document] = field(default_factory=dict)
    centred: bool = False
    mean: np.ndarray | None = None

    def after(self, step):
        left = {id_: document for id_, document in self.documents.items() if id_ not in step.ids}
        if step.what == "add":
            replaced = {document.id for document in step.documents}
            left = {id_: document for id_, document in left.items() if id_ not in replaced}
            new = replace(self, documents=left | {document.id: document for document in step.documents})
            return new.fitted() if self.mean is None else new
        if step.what == "clear":
            return replace(self, documents={}, mean=None)
        if step.what == "rebuild":
            return replace(self, mean=None).fitted()
        return replace(self, documents=left)

    def fitted(self):
        if not self.centred or len(self.documents) < FIT_AT:
            return self
        return replace(self, mean=vectors(self.documents.values()).mean(axis=0).astype(np.float32))


@cache
def vector(text):
    return ToyEmbedder().embed_documents([text])[0].astype(np.float64)


def vectors(documents):
    return np.array([vector(document.text) for document in documents])


def plan(seed, count):
    """Return the steps of a life; every third seed's is that of a larger, centred index."""
    dice, centred = random.Random(seed), seed % 3 == 1
    ids = [f"id{i}" for i in range(90 if centred else 30)]
    weights = {"add": 8, "delete": 3, "reopen": 3, "look": 2, "rebuild": 1, "clear": 0.3}
    steps = [Step("create"), *([Step("add", documents(dice, ids[:70])), Step("centre")] if centred else [])]
    while len(steps) < count:
        what = dice.choices(list(weights), list(weights.values()))[0]
        if what == "add":
            steps.append(Step("add", documents(dice, dice.sample(ids, dice.choice((1, 2, 5, 20))))))
        else:
            steps.append(Step(what, (), tuple(dice.sample(ids, 4)) if what == "delete" else ()))
    return [*steps[: count - 1], Step("close")]


def documents(dice, ids):
    """Return new documents, which replace older ones; now and then the first is longer than a page."""
    lengths = [dice.choice((2, 3, 4, 2000)), *(3 for _ in ids[1:])]
    texts = (" ".join(dice.choices(WORDS, k=length)) for length in lengths)
    return tuple(Document(text, {"by": len(ids)}, id_) for text, id_ in zip(texts, ids, strict=True))


def states(steps):
    """Return what the index must hold before the first step and after each: None before it is made."""
    found = [None]
    for step in steps:
        before = found[-1]
        if step.what == "create":
            found.append(State())
        elif step.what == "centre":
            found.append(replace(before, centred=True).fitted())
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
        index = way(self.folder, ToyEmbedder())
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
        elif step.what == "centre":
            self.index.rebuild(postprocess="center")
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
