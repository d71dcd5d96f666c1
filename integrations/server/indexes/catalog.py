"""The indexes of a server by name: those it was started with, and those made in its folder.

with catalog.use("faq") as index:                    # it is not removed meanwhile
    index.search("rollback")
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Condition

from tp_retrieval import (
    CorruptIndexError,
    IncompatibleIndexError,
    Index,
    IndexAccessError,
    IndexNotFoundError,
)
from tp_retrieval.indexing.storage.store import FILE
from tp_retrieval.integrations.server.access import ApiKey
from tp_retrieval.integrations.server.errors import RequestError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REMOVED = ".removed-"


class _Served:
    """An index, and how many requests use it."""

    def __init__(self, index: Index, *, removable: bool) -> None:
        self.index = index
        self.removable = removable
        self.users = 0


class Catalog:
    """Indexes by name, opened once each, from any thread.

    `given` are folders by name, `folder` is where others are made; those in it are opened too. Raises what `open` raises.
    """

    def __init__(self, given: Mapping[str, Path], folder: Path | None, open_: Callable[[Path], Index]) -> None:
        self._folder = folder
        self._open = open_
        self._served: dict[str, _Served] = {}
        self._making: set[str] = set()
        self._changed = Condition()
        try:
            for name, place in given.items():
                self._served[name] = _Served(open_(place), removable=False)
            self._open_made()
        except BaseException:
            self.close()
            raise

    def _open_made(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for place in sorted(self._folder.iterdir()):
            if place.is_symlink():
                continue  # what is elsewhere is named when the server is started
            if place.name.startswith(_REMOVED):
                _remove(place)  # a server was killed before it was gone
            elif place.name not in self._served and (place / FILE).is_file():
                try:
                    self._served[place.name] = _Served(self._open(place), removable=True)
                except IndexNotFoundError:
                    continue  # its making was cut short
                except (CorruptIndexError, IncompatibleIndexError, IndexAccessError) as error:
                    logger.error("%s is not served: %s", place, error)

    def close(self) -> None:
        """Close all indexes."""
        with self._changed:
            served, self._served = self._served, {}
        for one in served.values():
            one.index.close()

    def names(self, access: ApiKey) -> list[str]:
        """Return the names of the indexes that a key sees."""
        with self._changed:
            return [name for name in self._served if access.sees(name)]

    def visible(self, access: ApiKey) -> dict[str, Index]:
        """Return the indexes that a key sees; one that is removed meanwhile is closed."""
        with self._changed:
            return {name: one.index for name, one in self._served.items() if access.sees(name)}

    @contextmanager
    def use(self, name: str | None, access: ApiKey, expected: Index | None = None) -> Iterator[Index]:
        """Yield the index of a name, or the only one; it stays open within.

        Raises `RequestError` 404 if there is none that the key sees, or another one than was `expected`.
        """
        with self._changed:
            seen = {known: one for known, one in self._served.items() if access.sees(known)}
            if name is None and len(seen) == 1:
                name = next(iter(seen))
            if name not in seen:
                served = ", ".join(seen) or "none"
                raise RequestError(404, f"index: {name!r} is not served here; there are {served}", "index")
            used = seen[name]
            if expected is not None and used.index is not expected:
                raise RequestError(404, f"index: {name!r} was removed, and another one made in its place", "index")
            used.users += 1
        try:
            yield used.index
        finally:
            with self._changed:
                used.users -= 1
                self._changed.notify_all()

    def handle(self, name: str, access: ApiKey) -> Callable[[], AbstractContextManager[Index]]:
        """Return a function that gives an index as `use` does, and refuses one that is made anew under its name."""
        with self.use(name, access) as index:
            return partial(self.use, name, access, index)

    def make(self, name: str, create: Callable[[Path], Index]) -> None:
        """Make an index in the folder with `create`; raise `RequestError` 403 without a folder, 409 for a name in use."""
        if self._folder is None:
            raise RequestError(403, "this server makes no indexes; start it with --data FOLDER")
        if not _NAME.fullmatch(name):
            raise RequestError(
                400, f"name: {name!r} must be letters, digits, dots, dashes and underscores, up to 100", "name"
            )
        with self._changed:
            if name in self._served or name in self._making or (self._folder / name).exists():
                raise RequestError(409, f"name: there is an index or a folder {name!r} already", "name")
            self._making.add(name)
        try:
            made = _Served(create(self._folder / name), removable=True)
            with self._changed:
                self._served[name] = made
        finally:
            with self._changed:
                self._making.discard(name)

    def remove(self, name: str, access: ApiKey) -> None:
        """Remove an index that was made here, when nobody uses it any more; raise `RequestError` 403 for another one."""
        with self.use(name, access) as index:
            pass
        with self._changed:
            found = self._served.get(name)
            if found is None or found.index is not index:
                raise RequestError(404, f"index: {name!r} is not served here any more", "index")
            if not found.removable:
                raise RequestError(
                    403, f"index: {name!r} was given when the server was started; it is removed there", "name"
                )
            del self._served[name]
            self._changed.wait_for(lambda: found.users == 0)
        found.index.close()
        place = found.index.path
        removed = place.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
        place.rename(removed)  # at once, whatever happens to the files
        _remove(removed)


def _remove(folder: Path) -> None:
    """Remove the files of an index, and its folder where nothing else is in it."""
    for pattern in (f"{FILE}*", "vectors-*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # files of others
        folder.rmdir()
