"""Where the files of an index lie: the root of their names, found again when a folder was moved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tp_retrieval.indexing.storage.meta import FileSettings

_SEEN = 1_000  # names that are looked up to find where a folder was moved to
_File = TypeVar("_File")


def settings_for(
    stored: FileSettings | None, indexed: Mapping[str, object], given: Sequence[Path], options: Mapping[str, Any]
) -> FileSettings:
    """Return the settings that an index has, but for what `options` say, with the root where the files lie now."""
    changes = dict(options)
    for name in ("include", "exclude"):
        if name in changes:
            changes[name] = tuple(changes[name])
    root = changes.pop("root", None)
    if root is not None:
        found = Path(os.path.abspath(root))
    elif stored is not None:
        found = _present_root(Path(stored.root), [*indexed], given)
    else:
        found = _common_folder(given)
    return replace(stored or FileSettings(""), root=str(found), **changes)


def _common_folder(paths: Sequence[Path]) -> Path:
    """Return the folder that holds all of some files and folders, or is the only one."""
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def _present_root(stored: Path, names: Sequence[str], given: Sequence[Path]) -> Path:
    """Return the root of an index's names: the stored one or, where that is gone, one under which there are such files."""
    if stored.exists() or any(path.is_relative_to(stored) for path in given):
        return stored
    common, below = _common_folder(given), [name for name in names if not name.startswith("..")][:_SEEN]
    moved = (folder for folder in (common, *common.parents) if any((folder / name).is_file() for name in below))
    return next(moved, stored)


def found_again(indexed: dict[str, _File], root: Path) -> dict[str, _File]:
    """Return files by their present path, where version 0.1.0 stored the absolute one of a folder that was moved since."""
    gone = [Path(name) for name in indexed if Path(name).is_absolute() and not Path(name).exists()]
    if not gone:
        return indexed
    common = Path(os.path.commonpath([path.parent for path in gone]))
    folders = (common, *common.parents)
    moved = next((old for old in folders if any((root / path.relative_to(old)).is_file() for path in gone[:_SEEN])), None)
    if moved is None:
        return indexed
    present = {str(path): str(root / path.relative_to(moved)) for path in gone if path.is_relative_to(moved)}
    return {present.get(name, name): file for name, file in indexed.items()}


def name_of(path: Path, root: str) -> str:
    """Return the name of a file below a root, with slashes; `..` leads out of it."""
    return PurePosixPath(Path(os.path.relpath(path, root))).as_posix()
