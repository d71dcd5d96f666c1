"""Where the files of an index lie: the root of their names, found again when a folder was moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tp_retrieval.documents.folders import located
from tp_retrieval.indexing.storage.meta import FileSettings

logger = logging.getLogger(__name__)

_SEEN = 1_000  # names that are looked up to find where a folder was moved to
_File = TypeVar("_File")


def settings_for(
    stored: FileSettings | None, names: Collection[str], given: Sequence[Path], options: Mapping[str, Any]
) -> FileSettings:
    """Return the settings that an index has, but for what `options` say, with the root where the files lie now."""
    changes = {**options}
    changes |= {name: tuple(changes[name]) for name in ("include", "exclude") if name in changes}
    root = changes.pop("root", None)
    if root is not None:
        place = located(Path(root))
    elif stored is None or not names:
        place = _common_folder(given)
    else:
        place = _present_root(Path(stored.root), names, given)
    return replace(stored or FileSettings(""), root=str(place), **changes)


def _common_folder(paths: Sequence[Path]) -> Path:
    """Return the folder that holds all of some files and folders, or is the only one."""
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def _present_root(stored: Path, names: Collection[str], given: Sequence[Path]) -> Path:
    """Return the root of an index's names: the stored one or, where that is gone, one under which most of them are."""
    if stored.exists() or any(path.is_relative_to(stored) for path in given):
        return stored
    common = _common_folder(given)
    moved = _most_found(common, [name for name in names if not name.startswith("..")])
    if moved is None:
        logger.warning(
            "%s, where the files of this index were, is gone, and %s holds fewer than half of them; if they lie there "
            "now, name it as the root (--root, root=)",
            stored,
            common,
        )
    return moved or stored


def _most_found(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder, or one above it, that has most of some files, and at least half of them."""
    sample = names[:_SEEN]
    counts = {place: sum((place / name).is_file() for name in sample) for place in (folder, *folder.parents)}
    best = max(counts, key=counts.__getitem__)
    return best if sample and 2 * counts[best] >= len(sample) else None


def found_again(indexed: dict[str, _File], stored: FileSettings | None, settings: FileSettings) -> dict[str, _File]:
    """Return files by the names that they have now, below the root of `settings`."""
    root = Path(settings.root)
    if stored is not None:
        if stored.root == settings.root or not Path(stored.root).exists():  # the folder was moved: names stay
            return indexed
        return {name_of(Path(os.path.normpath(Path(stored.root, name))), settings.root): f for name, f in indexed.items()}
    moved = _moved_from(indexed, root)  # version 0.1.0 stored absolute paths
    if moved is None:
        return indexed
    return {
        str(root / Path(name).relative_to(moved)) if Path(name).is_relative_to(moved) else name: file
        for name, file in indexed.items()
    }


def _moved_from(names: Collection[str], root: Path) -> Path | None:
    """Return the folder that absolute paths of files that are gone were in, if most of them are below `root` now."""
    gone = [Path(name) for name in names if Path(name).is_absolute() and not Path(name).exists()][:_SEEN]
    if not gone:
        return None
    common = Path(os.path.commonpath([path.parent for path in gone]))
    for folder in (common, *common.parents):
        if 2 * sum((root / path.relative_to(folder)).is_file() for path in gone) >= len(gone):
            return folder
    return None


def name_of(path: Path, root: str) -> str:
    """Return the name of a file below a root, with slashes; `..` leads out of it."""
    return PurePosixPath(Path(os.path.relpath(path, root))).as_posix()
