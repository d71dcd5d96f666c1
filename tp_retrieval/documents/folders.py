"""The files among paths and below folders that are read, and those that are not, with the reason.

listing = find([Path("docs")], FolderRules(exclude=("drafts/",)))
listing.files
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from tp_retrieval.documents.formats import SUFFIXES, format_of, suffix_of
from tp_retrieval.errors import InputError

_SOME_SUFFIXES = f"{', '.join(SUFFIXES[:12])} or {len(SUFFIXES) - 12} others that docs/documents.md lists"
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

    Raises `InputError` for a path that is missing, a file without a reader that is named itself, a pattern that is none,
    and if there is nothing to read.
    """
    rules = rules or FolderRules()
    listing = Listing()
    files: dict[Path, None] = {}
    for path in paths:
        start = located(path)
        if not start.is_dir():
            if not _is_read(start, rules):
                raise InputError(f"{path}: no reader for {suffix_of(path)} files; there are {_SOME_SUFFIXES}")
            files[start] = None
            continue
        for file in _Walk(start, rules, listing.skipped).files():
            if not _is_utf8(file):
                listing.skipped.append(SkippedFile(_readable(file), "its name is not UTF-8"))
            elif _is_read(file, rules):
                files[file] = None
            else:
                listing.skipped.append(SkippedFile(file, f"no reader for {suffix_of(file)}"))
    listing.files.extend(_once(sorted(files)))
    if not listing.files:
        raise InputError(f"{', '.join(map(str, paths))}: no file here ends in {_SOME_SUFFIXES}")
    return listing


def located(path: Path) -> Path:
    """Return where a path that is given lies: its folders without links, a file itself where it is linked.

    Raises `InputError` if there is nothing, or if its name is not UTF-8.
    """
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"{path}: no such file or folder that can be read ({error.strerror})") from error
    if not exists:
        raise InputError(f"{path}: no such file or folder")
    resolved = Path(os.path.realpath(path)) if is_folder else Path(os.path.realpath(path.parent), path.name)
    if not _is_utf8(resolved):
        raise InputError(f"{_readable(resolved)}: its name is not UTF-8; rename it")
    return resolved


def _is_utf8(path: Path) -> bool:
    return _readable(path) == path


def _readable(path: Path) -> Path:
    return Path(os.fsencode(path).decode("utf-8", "replace"))


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
        self._spec = _spec([line for name in _IGNORE_FILES for line in _lines(folder / name)])

    def ignores(self, path: Path, is_folder: bool) -> bool:
        """Return whether a file or folder below is ignored."""
        verdict = _verdict(self._spec, path, self._folder, is_folder)
        if verdict is None:
            return self._above is not None and self._above.ignores(path, is_folder)
        return verdict


class _Walk:
    """The files below a folder that no rule leaves out; links to folders are followed when all else is seen."""

    def __init__(self, start: Path, rules: FolderRules, skipped: list[SkippedFile]) -> None:
        self._start = start
        self._include = _spec(rules.include, strict=True) if rules.include else None
        self._exclude = _spec(rules.exclude, strict=True)
        self._walked = {str(folder) for folder in rules.without}
        self._skipped = skipped

    def files(self) -> Iterator[Path]:
        """Yield them; folders that can't be read are noted, but for the first."""
        waiting = [(self._start, _ignore_rules_above(self._start))]
        linked: list[tuple[Path, _IgnoreRules | None]] = []
        while waiting or linked:
            folder, above = waiting.pop() if waiting else linked.pop(0)
            real = os.path.realpath(folder)
            if real in self._walked:  # a link may lead to a folder above it
                continue
            self._walked.add(real)
            ignore = _IgnoreRules(folder, above)
            for path, is_folder in self._entries(folder, ignore):
                if is_folder:
                    (linked if path.is_symlink() else waiting).append((path, ignore))
                elif self._include is None or _verdict(self._include, path, self._start, False):
                    yield path

    def _entries(self, folder: Path, ignore: _IgnoreRules) -> list[tuple[Path, bool]]:
        """Return the files and folders in a folder that are not left out, and whether each is a folder."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            if folder == self._start:
                raise InputError(f"{folder}: can't be read ({error.strerror})") from error
            self._skipped.append(SkippedFile(_readable(folder), f"can't be read ({error.strerror})"))
            return []
        entries = []
        for path in (folder / name for name in names if not name.startswith(".")):
            is_folder = os.path.isdir(path)  # False, too, for a link to itself
            is_left_out = ignore.ignores(path, is_folder) or _verdict(self._exclude, path, self._start, is_folder)
            if not is_left_out and (is_folder or os.path.isfile(path)):
                entries.append((path, is_folder))
        return entries


def _ignore_rules_above(start: Path) -> _IgnoreRules | None:
    """Return the rules above a folder that lies in a Git repository."""
    repository = next((folder for folder in start.parents if (folder / ".git").exists()), None)
    if repository is None or (start / ".git").exists():
        return None
    rules = None
    for folder in reversed([folder for folder in start.parents if folder.is_relative_to(repository)]):
        rules = _IgnoreRules(folder, rules)
    return rules


def _spec(patterns: Sequence[str], *, strict: bool = False) -> GitIgnoreSpec:
    """Return patterns that match; lines that are none are passed over, as Git does, or raise `InputError`."""
    valid = []
    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except (ValueError, re.error) as error:
            if strict:
                raise InputError(f"include, exclude: {pattern!r} is no pattern of .gitignore ({error})") from error
        else:
            valid.append(pattern)
    return GitIgnoreSpec.from_lines(valid)


def _verdict(spec: GitIgnoreSpec, path: Path, root: Path, is_folder: bool) -> bool | None:
    """Return whether patterns name a path, None if they say nothing of it."""
    return spec.check_file(path.relative_to(root).as_posix() + ("/" if is_folder else "")).include


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []
