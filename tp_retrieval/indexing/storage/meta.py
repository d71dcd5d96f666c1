"""The small records of an index's file: what it knows of itself, and fitted maps, each with a digest.

meta = Meta(database)
meta.set("kind", "flat")        # inside a transaction
meta.get("kind")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.sqlite.database import Database
from tp_retrieval.types import Float32Array


def digest_of(*values: str | int | bytes) -> bytes:
    """Return the SHA-256 of values, each after its length."""
    digest = hashlib.sha256()
    for value in values:
        part = value if isinstance(value, bytes) else str(value).encode()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def check(file: Path, record: str, digest: bytes, *values: Any) -> None:
    """Raise `CorruptIndexError` naming a record whose digest is not that of its values."""
    if digest_of(*values) != digest:
        raise CorruptIndexError(f"{file}: {record} is damaged; its digest does not fit")


def loaded(file: Path, record: str, text: str) -> Any:
    """Return the value of JSON text; raise `CorruptIndexError` naming the record if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptIndexError(f"{file}: {record} holds no JSON ({error})") from error


class Meta:
    """The `meta` table: JSON values by name. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> Any:
        """Return a value, None where it is missing."""
        row = self._database.first("SELECT value, digest FROM meta WHERE key = ?", (key,))
        if row is None:
            return None
        record = f"meta record {key!r}"
        check(self._database.file, record, row[1], key, row[0])
        return loaded(self._database.file, record, row[0])

    def set(self, key: str, value: Any) -> None:
        """Put a value there."""
        text = json.dumps(value, sort_keys=True)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, digest_of(key, text)))

    def forget(self, key: str) -> None:
        """Remove a value."""
        self._database.execute("DELETE FROM meta WHERE key = ?", (key,))

    def next_generation(self) -> None:
        """Tell every process that its image of the vectors is of the past."""
        self.set("generation", self.get("generation") + 1)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the values."""
        for (key,) in self._database.execute("SELECT key FROM meta"):
            try:
                self.get(key)
            except CorruptIndexError as error:
                yield str(error)


@dataclass(frozen=True)
class StoredMap:
    """A view's fitted map: its kind, how many rows it was fitted on, and its arrays by name."""

    postprocess: str
    fitted_on: int
    arrays: Mapping[str, Float32Array]


class Maps:
    """The tables `maps` and `map_arrays`: one fitted map a view. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoredMap]:
        """Return the fitted maps in the order of their views; empty before the first fit."""
        execute, file = self._database.execute, self._database.file
        found = []
        for view, postprocess, fitted_on, digest in execute("SELECT * FROM maps ORDER BY view"):
            check(file, f"map {view}", digest, view, postprocess, fitted_on)
            arrays = {}
            for name, shape, data, digest_ in execute(
                "SELECT name, shape, data, digest FROM map_arrays WHERE view = ?", (view,)
            ):
                check(file, f"map {view}, {name}", digest_, view, name, shape, data)
                arrays[name] = np.frombuffer(data, "<f4").reshape(json.loads(shape))
            found.append(StoredMap(postprocess, fitted_on, arrays))
        return found

    def replace(self, maps: Sequence[StoredMap]) -> None:
        """Put these in the place of those that are there."""
        self._database.execute("DELETE FROM maps")
        self._database.execute("DELETE FROM map_arrays")
        for view, fitted in enumerate(maps):
            self.put(view, fitted.postprocess, fitted.fitted_on)
            for name, array in fitted.arrays.items():
                self.put_array(view, name, json.dumps(array.shape), array.astype("<f4").tobytes())

    def put(self, view: int, postprocess: str, fitted_on: int) -> None:
        """Add a record of `maps`."""
        values = (view, postprocess, fitted_on)
        self._database.execute("INSERT INTO maps VALUES (?, ?, ?, ?)", (*values, digest_of(*values)))

    def put_array(self, view: int, name: str, shape: str, data: bytes) -> None:
        """Add a record of `map_arrays`."""
        values = (view, name, shape, data)
        self._database.execute("INSERT INTO map_arrays VALUES (?, ?, ?, ?, ?)", (*values, digest_of(*values)))
