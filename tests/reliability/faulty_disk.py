"""Run as a child: SQLite's own system calls fail at the Nth write, through the hook it keeps for its tests.

    python -m tests.reliability.faulty_disk FOLDER FAULT N

Adds and deletes in the index at FOLDER. Prints `acknowledged` for what was told to be durable, `refused` for an error of
ours, and `writes COUNT` at the end.
"""

import _sqlite3
import ctypes
import errno
import os
import sys

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, IndexAccessError

WRITES = {
    "write": (ctypes.c_ssize_t, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]),
    "pwrite": (ctypes.c_ssize_t, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]),
    "pwrite64": (ctypes.c_ssize_t, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]),
    "ftruncate": (ctypes.c_int, [ctypes.c_int, ctypes.c_int64]),
}


class Vfs(ctypes.Structure):
    """The head of SQLite's `sqlite3_vfs`, as far as `xSetSystemCall`."""


Setter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_char_p, ctypes.c_void_p)
Getter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Vfs), ctypes.c_char_p)
Vfs._fields_ = [
    ("iVersion", ctypes.c_int),
    ("szOsFile", ctypes.c_int),
    ("mxPathname", ctypes.c_int),
    ("pNext", ctypes.c_void_p),
    ("zName", ctypes.c_char_p),
    ("pAppData", ctypes.c_void_p),
    *((f"method{i}", ctypes.c_void_p) for i in range(13)),  # xOpen to xCurrentTimeInt64
    ("xSetSystemCall", Setter),
    ("xGetSystemCall", Getter),
]


class FaultyDisk:
    """Let the Nth write fail: with an errno, or by the end of the process. A full disk stays full."""

    def __init__(self, fault, at):
        self.fault, self.at, self.writes, self.kept = fault, at, 0, []
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
        vfs = library.sqlite3_vfs_find(None)
        for name, (result, arguments) in WRITES.items():
            address = vfs.contents.xGetSystemCall(vfs, name.encode())
            if address:
                kind = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
                replaced = kind(self.through(kind(address)))
                self.kept.append(replaced)
                assert vfs.contents.xSetSystemCall(vfs, name.encode(), ctypes.cast(replaced, ctypes.c_void_p)) == 0

    def through(self, real):
        def call(*arguments):
            self.writes += 1
            full = self.fault == "ENOSPC" and self.writes > self.at
            if self.writes == self.at or full:
                if self.fault == "exit":
                    os._exit(7)
                ctypes.set_errno(getattr(errno, self.fault))
                return -1
            return real(*arguments)

        return call


def main():
    folder, fault, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    index = Index.open(folder, ToyEmbedder())
    disk = FaultyDisk(fault, at)
    try:
        for batch in range(3):
            index.add([Document(f"text {batch} part {i}", {"batch": batch}, f"{batch}-{i}") for i in range(40)])
            print(f"acknowledged {batch}", flush=True)
        index.delete(["1-0"])
        print("acknowledged delete", flush=True)
    except IndexAccessError as error:
        print("refused" if "index.sqlite" in str(error) else error, flush=True)
        disk.at = 10**9  # there is room again, or the disk works again: the same index goes on
        index.add([Document("after the fault", {}, "after")])
        print("acknowledged after", flush=True)
    index.close()
    print("writes", disk.writes, flush=True)


if __name__ == "__main__":
    main()
