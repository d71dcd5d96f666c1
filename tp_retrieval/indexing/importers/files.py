"""An index kept equal to files: what changed is chunked and embedded again, chunks of removed files are deleted.

changes = index_files(index, ["docs"], exclude=["drafts/"])
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tqdm.auto import tqdm

from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.encodings import check_encoding
from tp_retrieval.documents.folders import FolderRules, Listing, SkippedFile, find, located
from tp_retrieval.documents.formats import ReadingOptions, format_of, suffix_of
from tp_retrieval.documents.sources import read
from tp_retrieval.errors import InputError, OptionalDependencyError
from tp_retrieval.indexing.importers.file_places import found_again, name_of, settings_for
from tp_retrieval.indexing.index import Index
from tp_retrieval.indexing.storage.meta import FileSettings
from tp_retrieval.indexing.validation import prepared
from tp_retrieval.types import Document, EmbedsStretches, check_text

_BATCH = 64  # chunks that are embedded and made durable together
_MOVED = 512  # chunks that get another id or place in one transaction, at least
_REFIT_AT = 1.2  # growth since the maps were fitted from which fitting anew is worth it


class FileOptions(TypedDict, total=False):
    """What `index_files` takes by name; an index keeps all but `loaders` and `strict`."""

    root: str | Path
    chunk_tokens: int
    include: Sequence[str]
    exclude: Sequence[str]
    encoding: str
    json_text: str
    loaders: Mapping[str, str]
    strict: bool


@dataclass(frozen=True)
class FileChanges:
    """What an update did: files left as they were, chunks embedded, removed, and given another id or place.

    `empty_files` hold no text; `skipped` could not be read, or have no reader.
    """

    unchanged_files: int = 0
    added: int = 0
    removed: int = 0
    moved: int = 0
    files: int = 0
    empty_files: int = 0
    skipped: tuple[SkippedFile, ...] = ()


OnProgress = Callable[[int, int, float], object]
"""Called after every batch with the chunks that are embedded, all chunks, and the seconds that a chunk takes."""


def index_files(
    index: Index,
    paths: Sequence[str | Path],
    *,
    namespace: str = "",
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[FileOptions],
) -> FileChanges:
    """Bring an index up to date with files and folders; only chunks whose text is new are embedded.

    Documents have their path below `root` in metadata and id; it is by default the folder that holds all paths, and follows
    a folder that was moved. Chunks have at most `chunk_tokens` tokens of the index's model, by default 256. `include` and
    `exclude` are patterns of .gitignore. `encoding` is that of text files, detected by default; `json_text` the path of
    texts in .json files, such as "items[].body"; `loaders` are commands by suffix that write a file's text. A
    namespace keeps these but for `loaders`. A file below a folder that can't be read is skipped, unless `strict`. Raises
    `InputError` for wrong options, and before anything is changed if two files have a chunk of the same id.
    """
    if isinstance(paths, (str, Path)) or not paths:
        raise InputError(f"paths: {paths!r} must be a list of files and folders")
    given = [located(Path(path)) for path in paths]
    loaders = {suffix.lower(): command for suffix, command in options.pop("loaders", {}).items()}
    strict = options.pop("strict", False)
    _check(options, loaders)
    indexed = _indexed_files(index, namespace)
    stored = index.file_settings(namespace)
    settings = settings_for(stored, indexed, given, options)
    indexed = found_again(indexed, stored, settings)
    rules = FolderRules(settings.include, settings.exclude, (Path(os.path.realpath(index.path)),), loaders.keys())
    listing = find(given, rules)
    reading = ReadingOptions(settings.encoding, settings.json_text, loaders)
    update = _Update(
        index, namespace, settings, reading, needed=listing.files if strict else [path for path in given if path.is_file()]
    )
    update.read(listing, indexed, [path for path in given if path.is_dir()], show_progress=show_progress)
    if settings != stored:
        index.set_file_settings(settings, namespace=namespace)
    return update.apply(on_progress, show_progress=show_progress)


def add_files(
    index: Index,
    folder: str | Path,
    *,
    namespace: str = "",
    chunk_tokens: int | None = None,
    on_progress: OnProgress | None = None,
) -> FileChanges:
    """Add the files in a folder by their names below it, in place of the chunks of files of the same names.

    Other files of the index stay, as do its settings, by which the files are cut and read. Raises what `index_files` does.
    """
    place = located(Path(folder))
    settings = replace(index.file_settings(namespace) or FileSettings(""), root=str(place))
    if chunk_tokens is not None:
        _check({"chunk_tokens": chunk_tokens}, {})
        settings = replace(settings, chunk_tokens=chunk_tokens)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    skipped = [SkippedFile(path, f"no reader for {suffix_of(path)}") for path in files if format_of(path) is None]
    listing = Listing([path for path in files if format_of(path) is not None], skipped)
    reading = ReadingOptions(settings.encoding, settings.json_text)
    update = _Update(index, namespace, settings, reading, needed=())
    update.read(listing, _indexed_files(index, namespace), [], show_progress=False)
    return update.apply(on_progress, refit=False, show_progress=False)


@dataclass
class _IndexedFile:
    """The chunks of one file in the index: their path, their digests, their ids, and their number in the file."""

    path: str = ""
    digests: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    expected: int = 0


def _indexed_files(index: Index, namespace: str) -> dict[str, _IndexedFile]:
    """Return the files that a namespace has chunks of, by the path in their metadata."""
    files: dict[str, _IndexedFile] = defaultdict(_IndexedFile)
    for document in index.get(namespace=namespace):
        path, digest, chunks = (document.metadata.get(name) for name in ("path", "digest", "chunks"))
        if isinstance(path, str) and isinstance(digest, str) and isinstance(chunks, int) and document.id is not None:
            file = files[path]
            file.path = path
            file.digests.add(digest)
            file.ids.append(document.id)
            file.expected = chunks
    return files


def _check(options: Mapping[str, Any], loaders: Mapping[str, str]) -> None:
    """Raise `InputError` for an option that is unknown, or of another type than it must have."""
    unknown = sorted(options.keys() - FileOptions.__annotations__)
    if unknown:
        raise InputError(f"{unknown[0]}: unknown option; there are {', '.join(FileOptions.__annotations__)}")
    for suffix in loaders:
        if not suffix.startswith(".") or "." in suffix[1:]:
            raise InputError(f"loaders: {suffix!r} must be a suffix such as '.odt'")
    tokens = options.get("chunk_tokens", 1)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise InputError(f"chunk_tokens: {tokens!r} must be a positive whole number")
    for name in ("include", "exclude"):
        patterns = options.get(name, [])
        if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
            raise InputError(f"{name}: {patterns!r} must be a list of patterns")
        check_text("".join(patterns), name)
    for name in ("encoding", "json_text"):
        check_text(options.get(name, ""), name)
    if options.get("encoding"):
        check_encoding(options["encoding"])
    if "root" in options and not Path(options["root"]).is_dir():
        raise InputError(f"root: {options['root']} is no folder")


def _check_documents(chunks: Sequence[Document], path: Path) -> None:
    """Raise `InputError` for chunks that an index would refuse, such as those of a file with an id twice."""
    try:
        prepared(chunks)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


class _Update:
    """One update of an index: what files hold is compared with what the index holds, and then applied."""

    def __init__(
        self, index: Index, namespace: str, settings: FileSettings, reading: ReadingOptions, needed: Sequence[Path]
    ) -> None:
        counter = getattr(index.embedder, "count_tokens", None)
        if counter is None:
            raise InputError(f"{index.path} was made by an embedder that counts no tokens, so files can't be cut for it")
        self._count_tokens: Callable[[str], int] = counter
        self._index = index
        self._namespace = namespace
        self._settings = settings
        self._reading = reading
        self._needed = frozenset(needed)  # files that may not be skipped
        self._skipped: list[SkippedFile] = []
        self._stale: set[str] = set()  # ids of chunks of files that changed or are gone
        self._kept: set[str] = set()  # ids of chunks that are or will be
        self._new: list[Document] = []
        self._moved: dict[str, Document] = {}  # by the present id
        self._replaced: set[str] = set()  # ids that chunks got by moving
        self._unchanged = self._empty = self._files = 0

    def read(
        self, listing: Listing, indexed: dict[str, _IndexedFile], folders: Sequence[Path], *, show_progress: bool
    ) -> None:
        """Read what changed, and compare it with the chunks that the index has."""
        owners: dict[str, str] = {}  # the paths of ids that stay as they are
        chunks: list[Document] = []
        self._skipped += listing.skipped
        self._files = len(listing.files)
        kept_as_they_are = {name_of(file.path, self._settings.root) for file in listing.skipped}
        for path in tqdm(listing.files, unit="file", desc="reading", disable=not show_progress, leave=False):
            name = name_of(path, self._settings.root)
            before = indexed.pop(name, None) or indexed.pop(str(path), None) or _IndexedFile()  # as version 0.1.0 named it
            of_file = self._chunks(path, name, before)
            if of_file is None:
                owners |= dict.fromkeys(before.ids, name)
                continue
            chunks += of_file
            self._stale |= set(before.ids)
        for name, before in indexed.items():
            path = Path(os.path.normpath(Path(self._settings.root, name)))
            is_gone = name not in kept_as_they_are and any(path.is_relative_to(folder) for folder in folders)
            if is_gone:
                self._stale |= set(before.ids)
            else:
                owners |= dict.fromkeys(before.ids, name)
        _check_ids(chunks, owners)
        self._check_others(chunks, owners)
        self._compare(chunks)

    def _check_others(self, chunks: Sequence[Document], owners: Mapping[str, str]) -> None:
        """Raise `InputError` for a chunk with the id of a document that was added by other means."""
        paths = {str(document.id): document.metadata["path"] for document in chunks}
        for document in self._index.get([*paths], namespace=self._namespace):
            if document.id not in self._stale and document.id not in owners:
                raise InputError(f"{paths[str(document.id)]}: the id {document.id!r} is taken by a document of no file")

    def _chunks(self, path: Path, name: str, before: _IndexedFile) -> list[Document] | None:
        """Return the chunks of a file, None where those of before stay: it is unchanged, or can't be read."""
        try:
            source = read(path, name, self._reading)
            same = before.digests == {source.digest(self._settings.chunk_tokens)} and len(before.ids) == before.expected
            if same and before.path == name:
                self._unchanged += 1
                return None
            chunks = chunk(source, self._settings.chunk_tokens, self._count_tokens)
            _check_documents(chunks, path)
        except (InputError, OptionalDependencyError) as error:
            if path in self._needed:
                raise
            self._skipped.append(SkippedFile(path, str(error).removeprefix(str(path)).lstrip(":, ")))
            return None
        self._empty += not chunks
        return chunks

    def _compare(self, chunks: Sequence[Document]) -> None:
        """Find for each chunk a stale one of the same text, whose vector it takes over."""
        by_text: dict[str, dict[str, Document]] = defaultdict(dict)
        for document in self._index.get(sorted(self._stale), namespace=self._namespace):
            by_text[document.text][str(document.id)] = document
        self._kept = {str(document.id) for document in chunks}
        for document in chunks:
            same = by_text.get(document.text)
            if not same:
                self._new.append(document)
                continue
            id_ = document.id if document.id in same else next(iter(same))
            before = same.pop(str(id_))
            if before != document:
                self._moved[str(before.id)] = document

    def apply(self, on_progress: OnProgress | None, *, refit: bool = True, show_progress: bool) -> FileChanges:
        """Change the index: chunks get their new ids and places, new ones are embedded, and those that are left go.

        Each step is durable: a second update after an interrupt embeds only the rest.
        """
        moved = sum(self._move(part) for part in _by_file(self._moved))
        self._add(on_progress, show_progress)
        gone = sorted(self._stale - self._kept - self._moved.keys())
        removed = self._index.delete(gone, namespace=self._namespace)
        if refit:
            refit_if_grown(self._index)
        return FileChanges(
            unchanged_files=self._unchanged,
            added=len(self._new),
            removed=removed,
            moved=moved,
            files=self._files,
            empty_files=self._empty,
            skipped=tuple(self._skipped),
        )

    def _move(self, documents: Mapping[str, Document]) -> int:
        """Give chunks their ids and places; a stale chunk that has such an id goes first, and is embedded anew if kept."""
        ids = {str(document.id) for document in documents.values()}
        taken = (ids & self._stale) - self._replaced - documents.keys()
        self._index.delete(sorted(taken), namespace=self._namespace)
        there = self._index.get([*documents], namespace=self._namespace)
        present = {str(document.id) for document in there} - self._replaced
        self._replaced |= ids
        self._new += [document for id_, document in documents.items() if id_ not in present]
        moved = {id_: document for id_, document in documents.items() if id_ in present}
        self._index.update(moved, namespace=self._namespace)
        return len(present)

    def _add(self, on_progress: OnProgress | None, show_progress: bool) -> None:
        documents = self._new
        with (
            self._index.adding([document.text for document in documents]),
            tqdm(total=len(documents), unit="chunk", disable=not show_progress) as bar,
        ):
            for begin in range(0, len(documents), _BATCH):
                started = time.perf_counter()
                bar.update(len(self._index.add(documents[begin : begin + _BATCH], namespace=self._namespace)))
                if on_progress is not None:
                    on_progress(
                        min(begin + _BATCH, len(documents)), len(documents), (time.perf_counter() - started) / _BATCH
                    )


def _by_file(documents: Mapping[str, Document]) -> Iterator[dict[str, Document]]:
    """Yield documents in parts that hold whole files, since ids of a file's chunks change places."""
    part: dict[str, Document] = {}
    path = None
    for id_, document in documents.items():
        if len(part) >= _MOVED and document.metadata["path"] != path:
            yield part
            part = {}
        part[id_], path = document, document.metadata["path"]
    if part:
        yield part


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
