"""The tables `maps` and `map_arrays`: one fitted map a view, each record with a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import check_record, record_digest
from tp_retrieval.types import Float32Array


@dataclass(frozen=True)
class StoredMap:
    """A view's fitted map: its kind, how many rows it was fitted on, and its arrays by name."""

    postprocess: str
    fitted_on: int
    arrays: Mapping[str, Float32Array]


class FittedMaps:
    """The fitted maps of an index. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoredMap]:
        """Return the fitted maps in the order of their views; empty before the first fit."""
        execute, file = self._database.execute, self._database.file
        maps = []
        for view, postprocess, fitted_on, digest in execute("SELECT * FROM maps ORDER BY view"):
            check_record(file, f"map {view}", digest, view, postprocess, fitted_on)
            arrays = {}
            rows = execute("SELECT name, shape, data, digest FROM map_arrays WHERE view = ?", (view,))
            for name, shape, data, array_digest in rows:
                check_record(file, f"map {view}, {name}", array_digest, view, name, shape, data)
                arrays[str(name)] = _array(file, f"map {view}, {name}", shape, data)
            if not isinstance(postprocess, str) or not isinstance(fitted_on, int):
                raise CorruptIndexError(f"{file}: map {view} is misshapen ({postprocess!r}, {fitted_on!r})")
            maps.append(StoredMap(postprocess, fitted_on, arrays))
        return maps

    def replace(self, maps: Sequence[StoredMap]) -> None:
        """Store maps in place of the present ones."""
        self._database.execute("DELETE FROM maps")
        self._database.execute("DELETE FROM map_arrays")
        for view, fitted in enumerate(maps):
            self.put(view, fitted.postprocess, fitted.fitted_on)
            for name, array in fitted.arrays.items():
                self.put_array(view, name, json.dumps(array.shape), array.astype("<f4").tobytes())

    def put(self, view: int, postprocess: str, fitted_on: int) -> None:
        """Add a record of `maps`."""
        values = (view, postprocess, fitted_on)
        self._database.execute("INSERT INTO maps VALUES (?, ?, ?, ?)", (*values, record_digest(*values)))

    def put_array(self, view: int, name: str, shape: str, data: bytes) -> None:
        """Add a record of `map_arrays`."""
        values = (view, name, shape, data)
        self._database.execute("INSERT INTO map_arrays VALUES (?, ?, ?, ?, ?)", (*values, record_digest(*values)))


def _array(file: Path, record: str, shape: str, data: bytes) -> Float32Array:
    try:
        return np.frombuffer(data, "<f4").reshape(json.loads(shape))
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptIndexError(f"{file}: {record} is misshapen ({error})") from error
