"""Replay a trace up to a crash, and choose what of it the disk kept.

What a `sync` of a file or folder made durable is there. Of what came after it, a disk may have kept anything:

- of a folder's own changes (names made, renamed, removed) the first few, in their order, as journaling file systems do;
- of a file's changes any, in any order, a write also in part: a write is as many sectors of 512 bytes, each there or not.

Files and folders are independent of each other, so a renamed file may lack what was written into it.
"""

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
NAMES = ("create", "mkdir", "rename", "unlink")
KINDS = ("nothing", "everything", "cut", "dropped", "torn", "names only", "data only", "sizes only")
"""Ways to lose: all that was not synced; nothing; what came after a moment; some; parts of some; all but names, all but
data, and all bytes of files that have their new names and sizes."""


@dataclass
class Folder:
    """Names that are durable, each with its file's number (folders have none), and the changes that are not."""

    names: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, object]] = field(default_factory=list)


@dataclass
class File:
    """Bytes that are durable, and the changes that are not."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, object]] = field(default_factory=list)


class Disk:
    """Files and folders under a root, as a trace leaves them."""

    def __init__(self, root):
        self.root = str(root)
        self.folders = {self.root: Folder()}
        self.files = {}
        self.begun = self.acknowledged = self.position = 0

    def apply(self, event):
        self.position += 1
        if event.what in NAMES:
            if event.what == "mkdir":
                self.folders[event.path] = Folder()
            elif event.what == "create":
                self.files[event.file] = File()
            self.folders[parent(event.path)].pending.append((self.position, event))
        elif event.what in ("write", "truncate"):
            self.files[event.file].pending.append((self.position, event))
        elif event.what == "sync":
            self.sync_file(self.files[event.file])
        elif event.what == "sync-folder":
            self.sync_folder(self.folders[event.path])
        else:
            self.begun += event.what == "begin"
            self.acknowledged += event.what == "acknowledge"

    @staticmethod
    def sync_file(file):
        for _, event in file.pending:
            change(file.content, event)
        file.pending.clear()

    @staticmethod
    def sync_folder(folder):
        for _, event in folder.pending:
            rename(folder.names, event)
        folder.pending.clear()

    def unsynced(self):
        return sorted(at for holder in (*self.folders.values(), *self.files.values()) for at, _ in holder.pending)

    def after(self, loss):
        """Return what is on the disk after a loss: content by path, None for a folder."""
        found = {}
        self._collect(self.root, loss, found)
        return found

    def _collect(self, path, loss, found):
        folder = self.folders[path]
        names = dict(folder.names)
        for _, event in loss.names(folder.pending):
            rename(names, event)
        for name, number in names.items():
            below = f"{path}/{name}"
            if number:
                found[below] = loss.content(self.files[number])
            else:
                found[below] = None
                self._collect(below, loss, found)


def parent(path):
    return path.rpartition("/")[0]


def rename(names, event):
    """Change a folder's names as an event did."""
    name = event.path.rpartition("/")[2]
    if event.what == "rename":
        assert parent(event.target) == parent(event.path)
        names.pop(name, None)
        names[event.target.rpartition("/")[2]] = event.file
    elif event.what == "unlink":
        names.pop(name, None)
    else:
        names[name] = event.file


def change(content, event, keep=lambda sector: True):
    """Change a file's content as an event did, a write only in the sectors that are kept."""
    if event.what == "truncate":
        del content[event.offset :]
        content.extend(bytes(event.offset - len(content)))
        return
    at = event.offset
    while at < (end := event.offset + len(event.data)):
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        if keep(at // SECTOR):
            content.extend(bytes(max(0, stop - len(content))))
            content[at:stop] = event.data[at - event.offset : stop - event.offset]
        at = stop


class Loss:
    """One way in which what was not synced is lost, the same for the same seed."""

    def __init__(self, kind, seed, unsynced):
        self.kind = kind
        self.dice = random.Random(seed)
        self.moment = self.dice.choice(unsynced) if unsynced else 0
        self.share = self.dice.choice((0.1, 0.5, 0.9))

    def names(self, pending):
        """Return the changes of a folder that are there: the first few."""
        if self.kind in ("nothing", "data only"):
            return []
        if self.kind in ("everything", "names only", "sizes only"):
            return pending
        if self.kind == "cut":
            return [change for change in pending if change[0] < self.moment]
        return pending[: self.dice.randint(0, len(pending))]

    def content(self, file):
        """Return the content of a file with those of its changes that are there."""
        content = bytearray(file.content)
        for at, event in file.pending:
            if self.kind == "sizes only":
                size = event.offset + len(event.data)
                content.extend(bytes(max(0, size - len(content))))
            elif self.kind == "torn":
                change(content, event, lambda sector: self.dice.random() < self.share)
            elif self._has(at):
                change(content, event)
        return bytes(content)

    def _has(self, at):
        if self.kind in ("everything", "data only"):
            return True
        if self.kind == "cut":
            return at < self.moment
        return self.kind == "dropped" and self.dice.random() < self.share


@dataclass(frozen=True)
class CrashState:
    """What a disk holds after a crash, and what the process had begun and been told to be durable."""

    position: int
    kind: str
    begun: int
    acknowledged: int
    tree: dict[str, bytes | None]

    def digest(self):
        """Return what only an equal state has."""
        files = [(path, content and hashlib.sha256(content).hexdigest()) for path, content in sorted(self.tree.items())]
        return hashlib.sha256(repr((self.begun, self.acknowledged, files)).encode()).digest()

    def write(self, root, into):
        """Put the files where they can be opened."""
        into.mkdir()
        for path, content in self.tree.items():
            target = into / Path(path).relative_to(root)
            if content is None:
                target.mkdir()
            else:
                target.write_bytes(content)


def crash_states(events, root, count, seed):
    """Yield up to `count` different states, from crashes all over a trace, most of them right after its rarer events."""
    dice = random.Random(seed)
    rare = [(at, kind) for at, event in enumerate(events, 1) if event.what != "write" for kind in KINDS]
    chosen = dice.sample(rare, min(len(rare), 2 * count // 3))
    chosen += [(dice.randint(1, len(events)), dice.choice(("cut", "dropped", "torn"))) for _ in range(count - len(chosen))]
    kinds = {}
    for at, kind in chosen:
        kinds.setdefault(at, []).append(kind)
    disk, seen = Disk(root), set()
    for at, event in enumerate(events, 1):
        disk.apply(event)
        for number, kind in enumerate(sorted(kinds.get(at, ()))):
            loss = Loss(kind, f"{seed} {at} {number}", disk.unsynced())
            state = CrashState(at, kind, disk.begun, disk.acknowledged, disk.after(loss))
            if disk.begun and state.digest() not in seen:
                seen.add(state.digest())
                yield state
