"""Read a collection of a Chroma folder by Chroma's own library, from a copy: it writes into folders that it reads.

with open_collection(folder, "papers") as (collection, summary):
    for documents, vectors in collection.batches():   # vectors (n, dimension) float32
        ...
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID

import numpy as np

from tp_retrieval.errors import InputError, OptionalDependencyError
from tp_retrieval.indexing.validation import prepared
from tp_retrieval.types import Document, Float32Array, checked_vectors

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

_DATABASE = "chroma.sqlite3"
_SAME_LENGTH = 1e-3  # relative difference between vectors that were scaled to one length in few bits


@dataclass(frozen=True)
class CollectionSummary:
    """The number of entries with and without text, the vectors' dimension, and whether all are of one length.

    If they are, cosine, inner product and distance give the same order.
    """

    documents: int
    without_text: int
    dimension: int
    one_length: bool


class ChromaCollection:
    """An open collection: its name, and the `space` that it compares vectors by, "l2", "cosine" or "ip"."""

    def __init__(self, collection: Collection, folder: Path) -> None:
        self._collection = collection
        self._folder = folder
        self.name = collection.name
        configuration = collection.configuration_json
        self.space = str((configuration.get("hnsw") or configuration.get("spann") or {}).get("space", "l2"))

    def batches(self, size: int = 1024) -> Iterator[tuple[list[Document], Float32Array]]:
        """Yield the documents that have a text, in the order of adding, with their vectors `(n, dimension) float32`.

        Raises `InputError` if the collection is damaged.
        """
        for begin in range(0, self._count(), size):
            with _explained(self._folder):
                page = self._collection.get(include=["embeddings", "documents", "metadatas"], limit=size, offset=begin)
                rows = enumerate(zip(page["ids"], page["documents"] or (), page["metadatas"] or (), strict=True))
                texts = {i: Document(text, dict(fields or {}), id_) for i, (id_, text, fields) in rows if text is not None}
                with np.errstate(over="ignore"):  # infinity is refused later, in one line
                    vectors = np.asarray(page["embeddings"], dtype=np.float32)[list(texts)]
            if texts:
                yield list(texts.values()), vectors

    def summary(self) -> CollectionSummary:
        """Read the whole collection and return its summary; raise `InputError` for what an index would refuse."""
        documents, dimension, shortest, longest = 0, 0, np.inf, 0.0
        for batch, vectors in self.batches():
            dimension = dimension or vectors.shape[1]
            try:
                prepared(batch)
                checked_vectors(vectors, len(batch), dimension)
            except InputError as error:
                raise InputError(f"{self.name}, behind its first {documents} documents: {error}") from error
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)  # float32 may not hold them
            shortest, longest = min(shortest, lengths.min()), max(longest, lengths.max())
            documents += len(batch)
        if documents == 0:
            raise InputError(f"{self._folder}: the collection {self.name!r} holds no documents with a text")
        return CollectionSummary(
            documents, self._count() - documents, dimension, bool(longest - shortest <= _SAME_LENGTH * longest)
        )

    def _count(self) -> int:
        with _explained(self._folder):
            return self._collection.count()


@contextmanager
def open_collection(folder: Path, name: str | None = None) -> Iterator[tuple[ChromaCollection, CollectionSummary]]:
    """Open a collection of a folder that Chroma's `PersistentClient` wrote, the only one if no name is given.

    Within it the folder's copy, in the system's place for temporary files, is open. The collection was then read whole by
    a process of its own, since damaged files can crash Chroma. Raises `OptionalDependencyError` without chromadb, and
    `InputError` for a folder or a collection that is missing, damaged, or holds what an index would refuse.
    """
    with tempfile.TemporaryDirectory(prefix="tp-retrieval-") as temporary:
        copy = Path(temporary)
        _copy(folder, copy)
        try:
            import chromadb  # noqa: F401
        except ImportError as error:
            raise OptionalDependencyError(error.name or "chromadb", "chroma") from error
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                summary = pool.submit(_summary, folder, copy, name).result()
        except BrokenProcessPool as error:
            raise InputError(f"{folder}: Chroma crashed when it read this, so a file is damaged ({error})") from error
        with _collection(folder, copy, name) as collection:
            yield collection, summary


def _summary(folder: Path, copy: Path, name: str | None) -> CollectionSummary:
    with _collection(folder, copy, name) as collection:
        return collection.summary()


@contextmanager
def _collection(folder: Path, copy: Path, name: str | None) -> Iterator[ChromaCollection]:
    import chromadb
    from chromadb.config import Settings

    # named here, so that no environment variable chooses the implementation that unpickles; this one does not
    settings = Settings(anonymized_telemetry=False, chroma_api_impl="chromadb.api.rust.RustBindingsAPI")
    with _explained(folder):
        client = cast("Client", chromadb.PersistentClient(copy, settings))
    with client:
        with _explained(folder):
            collections = {collection.name: collection for collection in client.list_collections()}
        yield ChromaCollection(_chosen(collections, folder, name), folder)


def _chosen(collections: Mapping[str, Collection], folder: Path, name: str | None) -> Collection:
    if not collections:
        raise InputError(f"{folder}: holds no collection")
    if name is None and len(collections) == 1:
        return next(iter(collections.values()))
    if name is None or name not in collections:
        problem = "holds several collections" if name is None else f"has no collection {name!r}"
        raise InputError(f"{folder}: {problem}; name one of {', '.join(sorted(collections))}")
    return collections[name]


def _copy(folder: Path, copy: Path) -> None:
    if not (folder / _DATABASE).is_file():
        raise InputError(f"{folder}: holds no {_DATABASE}; give a folder that Chroma's PersistentClient wrote")
    try:
        before = _files(folder)
        for file in before:
            target = copy / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        changed = _files(folder) != before
    except OSError as error:
        raise InputError(f"{folder}: can't be copied to {copy}, where it would be read ({error})") from error
    if changed:
        raise InputError(f"{folder}: was written to meanwhile; close what uses it and run this again")


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return sizes and times of Chroma's files: the database with its logs, and vectors in folders named by UUIDs."""
    own = [path for path in folder.iterdir() if path.name.startswith(_DATABASE) or _is_uuid(path.name)]
    files = [file for path in own for file in (path, *path.rglob("*")) if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise what Chroma raises for a damaged folder as `InputError`."""
    from chromadb.errors import ChromaError

    try:
        yield
    except (ChromaError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: Chroma can't read it ({error})") from error
