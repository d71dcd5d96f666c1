"""Record what a process does to files: SQLite's calls at its VFS, Python's calls in `os`, other writers by their results.

FAISS writes its file through C, where nothing can be put in between. So before each recorded event the folder is compared
with what was recorded so far, and a difference becomes a write: the same events in the same order, if the writer's own
writes between two recorded calls are taken as one.
"""

import _sqlite3
import base64
import ctypes
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

NOT_READ = ("-shm", "-wal", "-journal", ".sqlite")
"""Ends of names whose content SQLite's own calls give: to open and close such a file would drop SQLite's locks on it."""


@dataclass(frozen=True)
class Event:
    """One step of a process: what it did, to which file (a number given when it is created) or name."""

    what: str
    """create, write, truncate, sync, rename, unlink, mkdir, sync-folder, begin or acknowledge"""
    file: int = 0
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""

    def line(self):
        return json.dumps(asdict(self) | {"data": base64.b64encode(self.data).decode()})

    @classmethod
    def of(cls, line):
        fields = json.loads(line)
        return cls(**fields | {"data": base64.b64decode(fields["data"])})


class Trace:
    """Record every change under a folder, from now on."""

    def __init__(self, root):
        self.root = Path(root)
        self.events = []
        self._files = {}  # path -> number
        self._contents = {}  # number -> what was recorded of a file that is compared
        self._last = 0
        self._lock = threading.RLock()
        self._begin()
        _replace_calls_of_os(self)
        self._sqlite = SQLiteCalls(self)

    def _begin(self):
        """Record what is there already as durable."""
        for path in sorted(self.root.rglob("*")):
            if path.is_dir():
                self.events.append(Event("mkdir", path=str(path)))
            elif not path.name.endswith("-shm"):
                number, content = self.number(path), path.read_bytes()
                self.events += [Event("write", file=number, data=content), Event("sync", file=number, path=str(path))]
                self._contents[number] = content
        self.events += [Event("sync-folder", path=str(folder)) for folder in (self.root, *self.folders())]

    def folders(self):
        return filter(Path.is_dir, self.root.rglob("*"))

    def note(self, what, **fields):
        with self._lock:
            self.compare()
            self.events.append(Event(what, **fields))

    def number(self, path):
        """Return a file's number; record that it was made if that is new."""
        path = str(path)
        if path not in self._files:
            self._last += 1
            self._files[path] = self._last
            self.events.append(Event("create", file=self._last, path=path))
        return self._files[path]

    def compare(self):
        """Record how the files differ from what was recorded so far."""
        with self._lock:
            there = {path for path in self._paths() if not path.endswith("-shm")}
            for path in sorted(set(self._files) - there):
                self.forget(path)
            for path in sorted(there):
                number = self.number(path)
                if not path.endswith(NOT_READ):
                    self._compare_content(number, Path(path).read_bytes())

    def _paths(self):
        """Yield the files below the root."""
        folders = [str(self.root)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    else:
                        yield entry.path

    def _compare_content(self, number, content):
        before = self._contents.get(number, b"")
        if content == before:
            return
        self._contents[number] = content
        if not content.startswith(before):
            self.events.append(Event("truncate", file=number, offset=0))
            before = b""
        if len(content) > len(before):
            self.events.append(Event("write", file=number, offset=len(before), data=content[len(before) :]))

    def forget(self, path):
        if str(path) in self._files:
            self.events.append(Event("unlink", file=self._files.pop(str(path)), path=str(path)))

    def renamed(self, path, target):
        number = self._files.pop(str(path))
        self._files[str(target)] = number
        self.events.append(Event("rename", file=number, path=str(path), target=str(target)))

    def synced(self, descriptor):
        """Record that a file or folder is durable, after the call for it came back."""
        status = os.fstat(descriptor)
        for path in (*self._files, str(self.root), *map(str, self.folders())):
            if os.path.exists(path) and os.path.samestat(status, os.stat(path)):
                if path in self._files:
                    self.note("sync", file=self._files[path], path=path)
                else:
                    self.note("sync-folder", path=path)

    def covers(self, path):
        return Path(path).is_relative_to(self.root)


def _replace_calls_of_os(trace):
    """Record Python's own calls that change folders or make something durable."""

    def around(name, record):
        real = getattr(os, name)

        def call(*arguments, **options):
            with trace._lock:
                trace.compare()
                result = real(*arguments, **options)
                record(*arguments)
                return result

        setattr(os, name, call)

    def removed(path, *_):
        trace.forget(path)

    def made(path, *_):
        if trace.covers(path):
            trace.note("mkdir", path=str(path))

    def renamed(path, target, *_):
        if trace.covers(path):
            trace.renamed(path, target)

    for name, record in {
        "fsync": trace.synced,
        "fdatasync": trace.synced,
        "unlink": removed,
        "remove": removed,
        "mkdir": made,
        "rename": renamed,
        "replace": renamed,
    }.items():
        if hasattr(os, name):
            around(name, record)


class Vfs(ctypes.Structure):
    """SQLite's `sqlite3_vfs`, as far as `xGetSystemCall`."""


class Methods(ctypes.Structure):
    """SQLite's `sqlite3_io_methods`, what can be done to an open file."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize")),
        *((f"method{i}", ctypes.c_void_p) for i in range(12)),  # xLock to xUnfetch
    )


class File(ctypes.Structure):
    """SQLite's `sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(Methods)),)


Open = ctypes.CFUNCTYPE(  # SQLite keeps the address of the path, so it is handed on and not copied
    ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
Delete = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_char_p, ctypes.c_int)
Setter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_char_p, ctypes.c_void_p)
Getter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Vfs), ctypes.c_char_p)
Write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
OpenFolder = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
Vfs._fields_ = [
    ("iVersion", ctypes.c_int),
    ("szOsFile", ctypes.c_int),
    ("mxPathname", ctypes.c_int),
    ("pNext", ctypes.c_void_p),
    ("zName", ctypes.c_char_p),
    ("pAppData", ctypes.c_void_p),
    ("xOpen", Open),
    ("xDelete", Delete),
    *((f"method{i}", ctypes.c_void_p) for i in range(11)),  # xAccess to xCurrentTimeInt64
    ("xSetSystemCall", Setter),
    ("xGetSystemCall", Getter),
]


class SQLiteCalls:
    """Record what SQLite does to its files, by standing in for the calls of its VFS."""

    def __init__(self, trace):
        self._trace = trace
        self._numbers = {}  # address of an open file -> its number and path
        self._methods = {}  # address of SQLite's own methods -> ours
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
        vfs = library.sqlite3_vfs_find(None)
        self._open, self._delete = (
            kind(ctypes.cast(getattr(vfs.contents, name), ctypes.c_void_p).value)
            for kind, name in ((Open, "xOpen"), (Delete, "xDelete"))
        )
        self._open_folder = OpenFolder(vfs.contents.xGetSystemCall(vfs, b"openDirectory"))
        self._kept = [Open(self.open), Delete(self.delete), OpenFolder(self.open_folder)]  # not to be collected
        vfs.contents.xOpen, vfs.contents.xDelete = self._kept[:2]
        replaced = vfs.contents.xSetSystemCall(vfs, b"openDirectory", ctypes.cast(self._kept[2], ctypes.c_void_p))
        assert replaced == 0

    def open(self, vfs, path, file, flags, out):
        trace = self._trace
        with trace._lock:
            trace.compare()
            name = os.fsdecode(ctypes.string_at(path)) if path else ""  # a temporary file has none
            code = self._open(vfs, path, file, flags, out)
            if code == 0 and trace.covers(name):
                self._numbers[file] = trace.number(name), name
                handle = ctypes.cast(file, ctypes.POINTER(File)).contents
                handle.methods = ctypes.pointer(self._ours(handle.methods.contents))
        return code

    def delete(self, vfs, path, sync_folder):
        with self._trace._lock:
            self._trace.compare()
            return self._delete(vfs, path, sync_folder)  # the next comparison notes it, that of `open_folder` at the latest

    def open_folder(self, path, out):
        """SQLite opens a folder only to make it durable."""
        self._trace.note("sync-folder", path=str(Path(os.fsdecode(path)).parent))
        return self._open_folder(path, out)

    def _ours(self, real):
        address = ctypes.addressof(real)
        if address not in self._methods:
            ours = Methods.from_buffer_copy(real)
            write, truncate, sync = Write(real.xWrite), Truncate(real.xTruncate), Sync(real.xSync)

            def written(file, data, size, offset):
                self._note("write", file, offset=offset, data=ctypes.string_at(data, size))
                return write(file, data, size, offset)

            def truncated(file, size):
                self._note("truncate", file, offset=size)
                return truncate(file, size)

            def synced(file, flags):
                self._note("sync", file)
                return sync(file, flags)

            calls = Write(written), Truncate(truncated), Sync(synced)
            ours.xWrite, ours.xTruncate, ours.xSync = (ctypes.cast(call, ctypes.c_void_p).value for call in calls)
            self._methods[address] = ours
            self._kept += calls
        return self._methods[address]

    def _note(self, what, file, **fields):
        number, path = self._numbers[file]
        self._trace.note(what, file=number, path=path, **fields)
