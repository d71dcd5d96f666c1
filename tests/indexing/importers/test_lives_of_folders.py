"""An index of files holds what a new index of the same files holds, whatever happened to them, interrupts included."""

import json
import random
import shutil
from collections import Counter
from contextlib import suppress

import pytest

from tests.toy import SampledEmbedder, StretchEmbedder, ToyEmbedder
from tp_retrieval import Index, InputError, index_files

PARTS = [
    "alpha beta",
    "gamma delta epsilon",
    "one two three four five six seven",
    "# Head",
    "## Sub",
    "river. stone. cat",
    "x",
]
NAMES = ["a.md", "b.md", "c.txt", "d.csv", "e.jsonl", "f"]
FOLDERS = ["", "m", "m/n", "o"]


class Interrupted(BaseException):
    pass


class Life:
    """A folder, its index, and what the embedder read."""

    def __init__(self, seed, place):
        self.chance = random.Random(seed)
        self.place, self.root = place, place / "root"
        self.root.mkdir()
        self.embedder = self.chance.choice([ToyEmbedder, StretchEmbedder, SampledEmbedder])()
        self.index = Index.create(place / "index", self.embedder)
        self.options = {"chunk_tokens": 6}
        self.is_current = False  # else a folder that is moved may not be known again

    def files(self):
        return sorted(file for file in self.root.rglob("*") if file.is_file())

    def write(self, file):
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = [self.chance.choice(PARTS) for _ in range(self.chance.randrange(6))]
        text = "\n\n".join(parts)
        if file.suffix == ".jsonl":
            text = "\n".join(json.dumps({"text": part, "id": f"{file.parent}{i}"}) for i, part in enumerate(parts))
        if file.suffix == ".csv":
            text = "\n".join(["first,second", *(f"{part},1" for part in parts)])
        file.write_text(text)

    def change(self):
        chance, files = self.chance, self.files()
        operation = chance.choice(["write", "write", "edit", "rename", "swap", "delete", "ignore", "options"])
        if operation == "write" or not files:
            self.write(self.root / chance.choice(FOLDERS) / chance.choice(NAMES))
        elif operation == "edit":
            self.write(chance.choice(files))
        elif operation == "rename":
            file = chance.choice(files)
            target = self.root / chance.choice(FOLDERS) / f"{chance.choice('pqr')}{file.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        elif operation == "swap":
            one = chance.choice(files)
            other = chance.choice(
                [file for file in files if file.suffix == one.suffix]
            )  # what was known of a broken file stays
            first, second = one.read_bytes(), other.read_bytes()
            one.write_bytes(second)
            other.write_bytes(first)
        elif operation == "delete":
            chance.choice(files).unlink()
        elif operation == "ignore":
            (self.root / ".gitignore").write_text(chance.choice(["", "m/n/", "*.txt"]))
        else:
            self.options = {"chunk_tokens": chance.choice([4, 6, 12])}

    def move_the_root(self):
        self.root = self.root.rename(self.place / f"root{self.chance.random()}")

    def interrupt(self, patch):
        """Let one of the next changes of the index be the last of its update."""
        name, left = self.chance.choice(["add", "update", "delete"]), [self.chance.randrange(3)]
        original = getattr(Index, name)

        def interrupted(self, *arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Interrupted
            return original(self, *arguments, **options)

        patch.setattr(Index, name, interrupted)

    def check(self, number):
        with Index.create(self.place / f"new{number}", ToyEmbedder()) as new:
            try:
                index_files(new, [self.root], **self.options)
            except InputError:  # nothing to read, or an id in two files
                with pytest.raises(InputError):
                    index_files(self.index, [self.root], **self.options)
                self.is_current = False
                return
            known = Counter(document.text for document in self.index)
            self.embedder.embedded.clear()
            index_files(self.index, [self.root], **self.options)
            assert holds(self.index) == holds(new)
            assert self.index.verify().problems == ()
            if type(self.embedder) is ToyEmbedder:  # the others may read texts of their sample again
                assert Counter(self.embedder.embedded) == Counter(document.text for document in new) - known
            changes = index_files(self.index, [self.root])
            assert (changes.added, changes.removed, changes.moved) == (0, 0, 0)
            self.is_current = True


def holds(index):
    return {document.id: (document.text, dict(document.metadata)) for document in index}


def live(seed, steps, place):
    life = Life(seed, place)
    with life.index:
        for step in range(steps):
            if step % 5 == 4 and life.is_current:
                life.move_the_root()
            else:
                for _ in range(life.chance.randint(1, 3)):
                    life.change()
                if life.chance.random() < 0.4:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr("tp_retrieval.indexing.importers.files._BATCH", 2)
                        life.interrupt(patch)
                        with suppress(Interrupted, InputError):
                            index_files(life.index, [life.root], **life.options)
            life.check(step)


@pytest.mark.parametrize("seed", range(6))
def test_six_folders_of_ten_steps(seed, tmp_path):
    live(seed, 10, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_a_hundred_folders_of_fifteen_steps(seed, tmp_path):
    live(seed, 15, tmp_path)
    shutil.rmtree(tmp_path)


def test_the_harness_bites(tmp_path, monkeypatch):
    """An update that embeds every chunk of a changed file again, as version 0.1.0 did, is seen."""

    def everything(self, chunks):
        self._kept, self._new = {str(document.id) for document in chunks}, [*chunks]

    monkeypatch.setattr("tp_retrieval.indexing.importers.files._Update._compare", everything)
    with pytest.raises(AssertionError, match="Counter"):
        live(1, 10, tmp_path)
