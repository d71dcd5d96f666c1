"""The files among paths and below folders that are read, and those that are not, with the reason.

listing = find([Path("docs")], FolderRules(exclude=("drafts/",)))
listing.files
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from tp_retrieval.documents.formats import SUFFIXES, format_of, suffix_of
from tp_retrieval.errors import InputError

_IGNORE_FILES = (".gitignore", ".ignore")


@dataclass(frozen=True)
class FolderRules:
    """Which files below a folder are read; patterns are those of .gitignore, from the folder on.

    Hidden files, and what .gitignore and .ignore files name, are left out in any case, and so are the folders `without`.
    `suffixes` are read beside those that have a reader.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    without: tuple[Path, ...] = ()
    suffixes: Collection[str] = ()


@dataclass(frozen=True)
class SkippedFile:
    """A file that was not read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Listing:
    """The files to read, absolute, in order and each once, and those left out for want of a reader."""

    files: list[Path] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def find(paths: Sequence[Path], rules: FolderRules | None = None) -> Listing:
    """Return the files among paths and below folders; a link counts where it lies, unless its target is listed itself.

    Raises `InputError` for a path that is missing, a file without a reader that is named itself, and if there is nothing to
    read.
    """
    rules = rules or FolderRules()
    listing = Listing()
    files: dict[Path, None] = {}
    for path in paths:
        if not _exists(path):
            raise InputError(f"{path}: no such file or folder")
        start = Path(os.path.abspath(path))
        if not path.is_dir():
            if not _is_read(start, rules):
                raise InputError(f"{path}: no reader for {suffix_of(path)} files; there are {', '.join(SUFFIXES)}")
            files[start] = None
            continue
        for file in _below(start, rules):
            if _is_read(file, rules):
                files[file] = None
            else:
                listing.skipped.append(SkippedFile(file, f"no reader for {suffix_of(file)}"))
    listing.files.extend(_once(files))
    if not listing.files:
        raise InputError(f"{', '.join(map(str, paths))}: no file here ends in {', '.join(SUFFIXES)}")
    return listing


def _is_read(file: Path, rules: FolderRules) -> bool:
    return format_of(file) is not None or suffix_of(file) in rules.suffixes


def _once(files: Collection[Path]) -> Iterator[Path]:
    """Yield files, of several links to one file the first alone, and none where the file itself is there."""
    seen = {os.path.realpath(file) for file in files if os.path.realpath(file) == str(file)}
    for file in files:
        real = os.path.realpath(file)
        if real == str(file) or real not in seen:
            seen.add(real)
            yield file


class _IgnoreRules:
    """The ignore files of a folder and those above it, of which the nearest decides."""

    def __init__(self, folder: Path, above: _IgnoreRules | None) -> None:
        self._folder = folder
        self._above = above
        lines = [line for name in _IGNORE_FILES for line in _lines(folder / name)]
        self._spec = GitIgnoreSpec.from_lines(lines) if lines else None

    def ignores(self, path: Path, is_folder: bool) -> bool:
        """Return whether a file or folder below is ignored."""
        verdict = None if self._spec is None else _verdict(self._spec, path, self._folder, is_folder)
        if verdict is None:
            return self._above is not None and self._above.ignores(path, is_folder)
        return verdict


def _below(start: Path, rules: FolderRules) -> Iterator[Path]:
    """Yield the files below a folder that no rule leaves out, in order."""
    include = GitIgnoreSpec.from_lines(rules.include) if rules.include else None
    exclude = GitIgnoreSpec.from_lines(rules.exclude)
    walked: set[str] = set()
    waiting = [(start, _ignore_rules_above(start))]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(folder)
        if real in walked or Path(real) in rules.without:  # a link may lead to a folder above it
            continue
        walked.add(real)
        ignore = _IgnoreRules(folder, above)
        folders = []
        for entry in _entries(folder):
            path, is_folder = Path(entry.path), entry.is_dir()
            if entry.name.startswith(".") or ignore.ignores(path, is_folder) or _verdict(exclude, path, start, is_folder):
                continue
            if is_folder:
                folders.append((path, ignore))
            elif include is None or _verdict(include, path, start, False):
                yield path
        waiting += sorted(folders, key=lambda of: (of[0].is_symlink(), of[0]), reverse=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.is_dir() or entry.is_file()), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror})") from error


def _ignore_rules_above(start: Path) -> _IgnoreRules | None:
    """Return the rules above a folder that lies in a Git repository."""
    repository = next((folder for folder in start.parents if (folder / ".git").exists()), None)
    if repository is None or (start / ".git").exists():
        return None
    rules = None
    for folder in reversed([folder for folder in start.parents if folder.is_relative_to(repository)]):
        rules = _IgnoreRules(folder, rules)
    return rules


def _verdict(spec: GitIgnoreSpec, path: Path, root: Path, is_folder: bool) -> bool | None:
    """Return whether patterns name a path, None if they say nothing of it."""
    return spec.check_file(path.relative_to(root).as_posix() + ("/" if is_folder else "")).include


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"{path}: no such file or folder that can be read ({error.strerror})") from error
