"""Files that clients send: kept in a folder of their own while they are read, under the names that they came with."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tp_retrieval import Index
from tp_retrieval.indexing.importers.files import OnProgress, add_files
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.sqlite.digest import file_digest, record_digest


class ReceivedFiles:
    """Files by the names that they came with, in a temporary folder that lives as long as this object.

    `digest` is of their names and contents. Raises `RequestError` 400 for a name that leads out of the folder, or that came
    twice.
    """

    def __init__(self, uploads: Sequence[tuple[str, IO[bytes]]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tp-retrieval-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.digest = " ".join(self._kept(name, content) for name, content in uploads)

    def _kept(self, name: str, content: IO[bytes]) -> str:
        """Write a file, and return its name's and its content's digest."""
        path = PurePosixPath(name.replace("\\", "/"))
        parts = path.parts
        if not parts or path.is_absolute() or ".." in parts or "\0" in name or len(name) > 1_000 or ":" in parts[0]:
            raise RequestError(400, f"files: {name!r} is no name of a file below a folder", "files")
        place = Path(self._folder, *parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(content, file)
        except (OSError, ValueError) as error:
            raise RequestError(400, f"files: {name!r} can't be kept ({error.__class__.__name__})", "files") from error
        return record_digest(name, file_digest(place)).hex()

    def add_to(self, index: Index, namespace: str, chunk_tokens: int | None, progress: OnProgress) -> dict[str, Any]:
        """Add the files to an index, and return what became of them."""
        folder = self._folder
        changes = add_files(index, folder, namespace=namespace, chunk_tokens=chunk_tokens, on_progress=progress)
        skipped = [
            {"path": file.path.relative_to(folder).as_posix(), "reason": file.reason.replace(f"{folder}/", "")}
            for file in changes.skipped
        ]
        counts = {name: getattr(changes, name) for name in ("added", "removed", "moved", "unchanged_files", "empty_files")}
        return {**counts, "skipped": skipped}
