"""Files that clients send: kept in a folder of their own while they are read, under the names that they came with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from tp_retrieval import Index
from tp_retrieval.indexing.importers.files import OnProgress, add_files
from tp_retrieval.integrations.server.errors import RequestError


class ReceivedFiles:
    """A temporary folder of files; use it in a `with`, at whose end it is removed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tp-retrieval-")

    def __enter__(self) -> ReceivedFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    def keep(self, name: str, content: IO[bytes]) -> None:
        """Write a file; raise `RequestError` 400 for a name that leads out of the folder, or that came before."""
        path = PurePosixPath(name.replace("\\", "/"))
        parts = path.parts
        if not parts or path.is_absolute() or ".." in parts or "\0" in name or len(name) > 1_000 or ":" in parts[0]:
            raise RequestError(400, f"files: {name!r} is no name of a file below a folder", "files")
        place = Path(self._folder.name, *parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(content, file)
        except (OSError, ValueError) as error:
            raise RequestError(400, f"files: {name!r} can't be kept ({error.__class__.__name__})", "files") from error

    def add_to(self, index: Index, namespace: str, chunk_tokens: int | None, progress: OnProgress) -> dict[str, Any]:
        """Add the files to an index, and return what became of them."""
        folder = Path(self._folder.name)
        changes = add_files(index, folder, namespace=namespace, chunk_tokens=chunk_tokens, on_progress=progress)
        skipped = [
            {"path": file.path.relative_to(folder).as_posix(), "reason": file.reason.replace(f"{folder}/", "")}
            for file in changes.skipped
        ]
        counts = {name: getattr(changes, name) for name in ("added", "removed", "moved", "unchanged_files", "empty_files")}
        return {**counts, "skipped": skipped}


def received(uploads: Sequence[tuple[str, IO[bytes]]]) -> ReceivedFiles:
    """Return a folder of files by the names that they came with."""
    files = ReceivedFiles()
    try:
        for name, content in uploads:
            files.keep(name, content)
    except BaseException:
        with files:
            raise
    return files
