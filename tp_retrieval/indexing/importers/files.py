"""An index kept equal to files: changed files are chunked and embedded again, chunks of removed files are deleted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.sources import Source
from tp_retrieval.errors import InputError
from tp_retrieval.indexing.index import Index
from tp_retrieval.types import Document, EmbedsStretches

_BATCH = 64  # chunks that are embedded and made durable together
_REFIT_AT = 1.2  # growth since the maps were fitted from which fitting anew is worth it


@dataclass(frozen=True)
class FileChanges:
    """The numbers of files left as they were, of chunks added and of chunks removed."""

    unchanged_files: int
    added: int
    removed: int


@dataclass
class _IndexedFile:
    """The chunks of one file in the index: their digests, their ids, and their number in the file."""

    digests: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    expected: int = 0


class FileImporter:
    """Updates an index from files, whose chunks have the file's path and digest in their metadata.

    `count_tokens` measures chunks, of which none is longer than `chunk_tokens`. `on_estimate` is called with the chunks and
    the seconds left once the second batch is embedded; the first one also reads the prompts.
    """

    def __init__(
        self,
        index: Index,
        count_tokens: Callable[[str], int],
        chunk_tokens: int,
        on_estimate: Callable[[int, float], object] | None = None,
    ) -> None:
        self._on_estimate = on_estimate
        self._index = index
        self._count_tokens = count_tokens
        self._chunk_tokens = chunk_tokens

    def update(self, sources: Sequence[Source], folders: Sequence[Path], *, show_progress: bool = False) -> FileChanges:
        """Add the chunks of changed files; delete old ones, and those of files that `folders` no longer contain.

        Chunks are durable batch by batch: a second call after an interrupt embeds only the rest. Raises `InputError`,
        before anything is changed, if two files have a chunk of the same id.
        """
        indexed = self._indexed_files()
        stale: set[str] = set()
        kept: set[str | None] = set()
        pending: list[Document] = []
        owners: dict[str, str] = {}  # the paths of ids that stay as they are
        unchanged = 0
        for source in sources:
            before = indexed.pop(str(source.path), _IndexedFile())
            same = before.digests == {source.digest(self._chunk_tokens)}
            if same and len(before.ids) == before.expected:
                unchanged += 1
                owners |= dict.fromkeys(before.ids, str(source.path))
                continue
            chunks = chunk(source, self._chunk_tokens, self._count_tokens)
            kept |= {document.id for document in chunks}
            done = set(before.ids) if same else set()  # by a call that was interrupted
            pending += [document for document in chunks if document.id not in done]
            stale |= set(before.ids)
        for path, before in indexed.items():
            if any(Path(path).is_relative_to(folder.resolve()) for folder in folders):
                stale |= set(before.ids)
            else:
                owners |= dict.fromkeys(before.ids, path)
        _check_ids(pending, owners)
        self._add(pending, show_progress)
        removed = self._index.delete(sorted(stale - kept))
        refit_if_grown(self._index)
        return FileChanges(unchanged, len(pending), removed)

    def _indexed_files(self) -> dict[str, _IndexedFile]:
        files: dict[str, _IndexedFile] = defaultdict(_IndexedFile)
        for document in self._index:
            path = document.metadata.get("path")
            if isinstance(path, str) and document.id is not None:
                file = files[path]
                file.digests.add(str(document.metadata.get("digest")))
                file.ids.append(document.id)
                chunks = document.metadata.get("chunks")
                file.expected = chunks if isinstance(chunks, int) else 0
        return files

    def _add(self, documents: Sequence[Document], show_progress: bool) -> None:
        texts = [document.text for document in documents]
        with self._index.adding(texts), tqdm(total=len(documents), unit="chunk", disable=not show_progress) as bar:
            for begin in range(0, len(documents), _BATCH):
                started = time.perf_counter()
                bar.update(len(self._index.add(documents[begin : begin + _BATCH])))
                left = len(documents) - begin - _BATCH
                if begin == _BATCH and left > 0 and self._on_estimate is not None:
                    self._on_estimate(left, (time.perf_counter() - started) * left / _BATCH)


def refit_if_grown(index: Index, *, show_progress: bool = False) -> None:
    """Fit the maps anew if the index has outgrown the documents that they were fitted on, or if they lack stretches."""
    info = index.info()
    can_read = info.unread and isinstance(index.embedder, EmbedsStretches)
    if can_read or info.documents > _REFIT_AT * info.fitted_on > 0:
        index.rebuild(show_progress=show_progress)


def _check_ids(documents: Sequence[Document], owners: Mapping[str, str]) -> None:
    paths = dict(owners)
    for document in documents:
        path, id_ = document.metadata["path"], str(document.id)
        if id_ in paths:
            raise InputError(f"{path}: the id {id_!r} is taken by {paths[id_]}")
        paths[id_] = path
