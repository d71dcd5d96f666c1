"""An embedder that computes each vector once and stores it in a SQLite file.

    embedder = CachedEmbedder(Embedder.from_pretrained(), "vectors.sqlite")
    embedder.embed_documents(texts)  # computed
    embedder.embed_documents(texts)  # read, also by another process and another day

The key of a vector is its embedder's fingerprint, the type it was computed in, the role and the text. So a query never gets
a document's vector, and no model another's. Keys with a fingerprint of format 1 are still read, and replaced. Stretches of
documents, which the map `within:K` is fitted on, are stored as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Self

import numpy as np
import xxhash
from tqdm.auto import tqdm

from tp_retrieval.embedding.maps.affine import is_unread, same_vectors
from tp_retrieval.errors import IndexAccessError, InputError
from tp_retrieval.sqlite.database import objects_made_by
from tp_retrieval.sqlite.fork_safety import guarded
from tp_retrieval.types import (
    EmbedsStretches,
    Float32Array,
    HasLegacyIdentity,
    HasProvenance,
    Identity,
    Provenance,
    Stretches,
    TextEmbedder,
    VectorView,
    checked_texts,
    checked_vectors,
)

_SCHEMA = ["CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, digest BLOB NOT NULL)"]
_WINDOW = 2048  # texts whose vectors are written together, so that an interrupt loses no more


class CachedEmbedder:
    """An embedder with the vectors of another one, each computed once.

    The file holds vectors and digests, never a text, and may be shared by processes and embedders. A damaged vector is
    computed anew. Raises `InputError` for a file of another kind, `IndexAccessError` for one that can't be written.
    """

    provenance: Provenance
    """The model and recipe behind the vectors, if the embedder has them."""
    legacy_identity: Callable[[], Identity]
    """The identity that earlier versions stored, if the embedder has one."""
    embed_with_stretches: Callable[..., tuple[Float32Array, list[Stretches]]]
    """Vectors of documents with stretches, each computed once, if the embedder gives stretches."""

    def __init__(self, embedder: TextEmbedder, path: str | Path) -> None:
        self._embedder = embedder
        self._space = [embedder.fingerprint]
        self._legacy_space: list[str] | None = None
        self._legacy_proved = False
        if isinstance(embedder, HasProvenance):
            self.provenance = embedder.provenance
            self._space.append(self.provenance.dtype)
        if isinstance(embedder, HasLegacyIdentity):
            self.legacy_identity = embedder.legacy_identity
            self._legacy_space = [embedder.legacy_identity().fingerprint, *self._space[1:]]
        if isinstance(embedder, EmbedsStretches) and isinstance(embedder, HasProvenance):
            self.embed_with_stretches = partial(self._embed_with_stretches, embedder, embedder.provenance.views)
        self._lock = RLock()
        self._database = guarded(self, self._lock, Path(path))
        with self._lock:
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        if not self._database.writable:
            raise IndexAccessError(
                f"{self._database.file}: its folder is readonly; give a path where vectors can be stored"
            )
        wanted = objects_made_by(_SCHEMA)
        if not self._database.objects():
            self._database.enable_log()
            with self._database.transaction():
                if not self._database.objects():  # nobody was faster
                    for statement in _SCHEMA:
                        self._database.execute(statement)
        if self._database.objects() != wanted:
            raise InputError(f"{self._database.file}: this SQLite file is no cache of vectors; give a path of its own")

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.file

    @property
    def embedder(self) -> TextEmbedder:
        """The embedder that computes missing vectors."""
        return self._embedder

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._embedder.dimension

    @property
    def fingerprint(self) -> str:
        """The embedder's fingerprint, since the vectors are equal."""
        return self._embedder.fingerprint

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`, as the embedder computes it for queries."""
        return self._embed(texts, "query", self._embedder.embed_queries, show_progress)

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`, as the embedder computes it for documents."""
        return self._embed(texts, "document", self._embedder.embed_documents, show_progress)

    def __len__(self) -> int:
        """Return the number of records in the file: vectors, and stretches of documents by view."""
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM vectors")[0][0])

    def clear(self) -> None:
        """Remove every vector, of every embedder."""
        with self._lock, self._database.transaction():
            self._database.execute("DELETE FROM vectors")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_with_stretches(
        self,
        embedder: EmbedsStretches,
        views: Sequence[VectorView],
        texts: Sequence[str],
        wanted: Sequence[Collection[int]],
        *,
        sampled: Collection[int] = (),
        show_progress: bool = False,
    ) -> tuple[Float32Array, list[Stretches]]:
        """Return the vectors of documents, and of each the stretches of the views that are wanted of it.

        A document of which no `sampled` view is wanted has NaN there, unless its whole vector is stored.
        """
        checked = checked_texts(texts)
        pairs = [(text, view) for text, of_text in zip(checked, wanted, strict=True) for view in of_text]
        stretches = self._stored_stretches(pairs, views)
        missing: dict[str, set[int]] = {}
        for text, view in pairs:
            if (text, view) not in stretches:
                missing.setdefault(text, set()).add(view)
        if missing:
            stretches |= self._computed_stretches(embedder, missing, sampled)
        partly = [bool(sampled) and not {*sampled} & {*of_text} for of_text in wanted]
        vectors = np.empty((len(checked), self.dimension), dtype=np.float32)
        for rows, embed in (
            (np.flatnonzero(np.logical_not(partly)), self.embed_documents),
            (np.flatnonzero(partly), partial(self._embed_partly, embedder, views, sampled)),
        ):
            if len(rows):
                vectors[rows] = embed([checked[i] for i in rows], show_progress=show_progress)
        return vectors, [
            {view: stretches[text, view] for view in of_text} for text, of_text in zip(checked, wanted, strict=True)
        ]

    def _embed_partly(
        self,
        embedder: EmbedsStretches,
        views: Sequence[VectorView],
        sampled: Collection[int],
        texts: Sequence[str],
        *,
        show_progress: bool,
    ) -> Float32Array:
        """Return the vectors of documents, with NaN in the `sampled` views unless the whole vector is stored."""
        unique = list(dict.fromkeys(texts))
        vectors = np.full((len(unique), self.dimension), np.nan, dtype=np.float32)
        missing = self._read([_key(self._space, "document", text) for text in unique], vectors)
        columns = np.flatnonzero(np.repeat([i not in sampled for i in range(len(views))], [view.width for view in views]))

        def compute(texts: Sequence[str]) -> Float32Array:
            raw, _ = embedder.embed_with_stretches(texts, [()] * len(texts), sampled=sampled)
            return raw[:, columns]

        role = f"document without views {sorted(sampled)}"
        read = self._embed([unique[i] for i in missing], role, compute, show_progress, len(columns))
        vectors[np.ix_(np.array(missing, dtype=np.int64), columns)] = read
        row = {text: i for i, text in enumerate(unique)}
        return vectors[[row[text] for text in texts]]

    def _computed_stretches(
        self, embedder: EmbedsStretches, missing: Mapping[str, Collection[int]], sampled: Collection[int]
    ) -> dict[tuple[str, int], Float32Array]:
        """Compute and store stretches of texts, and whole vectors where none is stored, from the same pass."""
        vectors, computed = embedder.embed_with_stretches(list(missing), list(missing.values()), sampled=sampled)
        stretches = {
            (text, view): rows for text, of_text in zip(missing, computed, strict=True) for view, rows in of_text.items()
        }
        self._write([self._stretches_key(*pair) for pair in stretches], list(stretches.values()))
        keys = [_key(self._space, "document", text) for text in missing]
        new = self._read(keys, np.empty((len(keys), self.dimension), dtype=np.float32))
        whole = [i for i in new if not is_unread(vectors[i : i + 1])[0]]
        self._write([keys[i] for i in whole], vectors[whole])
        return stretches

    def _stored_stretches(
        self, pairs: Sequence[tuple[str, int]], views: Sequence[VectorView]
    ) -> dict[tuple[str, int], Float32Array]:
        """Return the intact stretches of texts and views."""
        pair_of = {self._stretches_key(*pair): pair for pair in pairs}
        with self._lock:
            intact = [
                (pair_of[key], data) for key, data, digest in self._rows(list(pair_of)) if digest == _digest(key, data)
            ]
        return {pair: np.frombuffer(data, dtype="<f4").reshape(-1, views[pair[1]].width) for pair, data in intact}

    def _stretches_key(self, text: str, view: int) -> bytes:
        return _key(self._space, f"stretches of view {view}", text)

    def _embed(
        self,
        texts: Sequence[str],
        role: str,
        compute: Callable[[Sequence[str]], Float32Array],
        show_progress: bool,
        dimension: int | None = None,
    ) -> Float32Array:
        dimension = dimension or self.dimension
        checked = checked_texts(texts)
        unique = list(dict.fromkeys(checked))
        keys = [_key(self._space, role, text) for text in unique]
        vectors = np.empty((len(unique), dimension), dtype=np.float32)
        missing = self._read(keys, vectors)
        if missing and self._legacy_space is not None:
            old = [_key(self._legacy_space, role, unique[i]) for i in missing]
            if self._is_ours(old, [unique[i] for i in missing], compute) and self._rename(
                {before: keys[i] for before, i in zip(old, missing, strict=True)}
            ):
                missing = self._read(keys, vectors)
        with tqdm(total=len(missing), unit="text", disable=not show_progress) as bar:
            for begin in range(0, len(missing), _WINDOW):
                window = missing[begin : begin + _WINDOW]
                computed = checked_vectors(compute([unique[i] for i in window]), len(window), dimension)
                self._write([keys[i] for i in window], computed)
                vectors[window] = computed
                bar.update(len(window))
        if len(unique) == len(checked):
            return vectors
        position = {text: i for i, text in enumerate(unique)}
        return vectors[[position[text] for text in checked]]

    def _read(self, keys: Sequence[bytes], vectors: Float32Array) -> list[int]:
        """Fill in the stored vectors; return the positions of the missing ones."""
        missing = {key: i for i, key in enumerate(keys)}
        with self._lock:
            for key, data, digest in self._rows(keys):
                if digest == _digest(key, data) and len(data) == 4 * vectors.shape[1]:
                    vectors[missing.pop(key)] = np.frombuffer(data, dtype="<f4")
        return list(missing.values())

    def _is_ours(self, old: Sequence[bytes], texts: list[str], compute: Callable[[Sequence[str]], Float32Array]) -> bool:
        """Return whether vectors of a fingerprint of format 1 are this embedder's: one text is embedded again.

        Models whose vectors differ can share a fingerprint of format 1. If they do, the old vectors are ignored.
        """
        if self._legacy_proved:
            return True
        kept = np.empty((len(old), self.dimension), dtype=np.float32)
        missing = set(self._read(old, kept))
        i = next((i for i in range(len(old)) if i not in missing), None)
        if i is None:
            return False  # none is stored; one may be for the next texts
        self._legacy_proved = same_vectors(checked_vectors(compute([texts[i]]), 1, self.dimension), kept[i : i + 1])
        if not self._legacy_proved:
            self._legacy_space = None
        return self._legacy_proved

    def _rename(self, keys: Mapping[bytes, bytes]) -> bool:
        """Replace the keys of format 1 of intact vectors; return whether there were any."""
        with self._lock:
            rows = list(self._rows(list(keys)))
            renamed = [
                (keys[key], _digest(keys[key], data), key) for key, data, digest in rows if digest == _digest(key, data)
            ]
            if renamed:
                with self._database.transaction():
                    self._database.execute_many("UPDATE OR REPLACE vectors SET key = ?, digest = ? WHERE key = ?", renamed)
        return bool(renamed)

    def _rows(self, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        return self._database.select_in("SELECT key, vector, digest FROM vectors WHERE key IN (?)", keys)

    def _write(self, keys: Sequence[bytes], vectors: Sequence[Float32Array] | Float32Array) -> None:
        data = [vector.astype("<f4").tobytes() for vector in vectors]
        rows = [(key, vector, _digest(key, vector)) for key, vector in zip(keys, data, strict=True)]
        with self._lock, self._database.transaction():
            self._database.execute_many("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)


def _key(space: Sequence[str], role: str, text: str) -> bytes:
    return hashlib.sha256(json.dumps([*space, role, text]).encode()).digest()


def _digest(key: bytes, data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(key + data)
