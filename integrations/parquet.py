"""Documents with their raw vectors in Parquet, as `tp-retrieval embed-corpus` writes them and an index loads them.

One folder of shards, each with the columns id, text, metadata (JSON), vector (float32, of one length) and fingerprint, and
in its schema what made the vectors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tp_retrieval import Document, Embedder, InputError
from tp_retrieval.types import Float32Array

PLAN = "plan.json"
"""Beside the shards of a job: what it is to do."""
_MADE = b"tp_retrieval"
_COLUMNS = ("id", "text", "metadata", "vector", "fingerprint")


@dataclass(frozen=True)
class Made:
    """What made a shard's vectors: enough to load the embedder again, and to tell it from any other."""

    fingerprint: str
    dimension: int
    source: str | None
    revision: str | None
    dtype: str
    recipe: dict[str, object]

    @classmethod
    def by(cls, embedder: Embedder) -> Made:
        """Return what an embedder makes."""
        known = embedder.provenance
        recipe = dict(known.recipe)
        return cls(embedder.fingerprint, embedder.dimension, known.source, known.revision, known.dtype, recipe)


@dataclass(frozen=True)
class Shard:
    """A part of a corpus: documents and their raw vectors `(n, dimension) float32`."""

    documents: list[Document]
    vectors: Float32Array
    made: Made


def write_shard(file: Path, shard: Shard) -> None:
    """Write a shard beside its place and move it there, so that a file is whole or not there at all."""
    made = shard.made
    columns = {
        "id": pa.array([str(document.id) for document in shard.documents], pa.string()),
        "text": pa.array([document.text for document in shard.documents], pa.large_string()),
        "metadata": pa.array([json.dumps(dict(document.metadata)) for document in shard.documents], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(shard.vectors.ravel()), made.dimension),
        "fingerprint": pa.array([made.fingerprint] * len(shard.documents)).dictionary_encode(),
    }
    table = pa.table(columns).replace_schema_metadata({_MADE: json.dumps(vars(made)).encode()})
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    pq.write_table(table, beside)
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    beside.replace(file)


def shard_files(folder: Path) -> list[Path]:
    """Return a folder's shards in order; raise `InputError` if there are none, or its job has not made them all."""
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: no folder of .parquet files")
    plan = folder / PLAN
    planned = len(json.loads(plan.read_text(encoding="utf-8"))["slices"]) if plan.exists() else len(files)
    if len(files) < planned:
        raise InputError(f"{folder}: {len(files)} of {planned} shards are there; run its `embed-corpus` again to the end")
    return files


def made_of(file: Path) -> Made:
    """Return what made a shard; raise `InputError` if it is none of ours."""
    try:
        schema = pq.read_schema(file)
        return Made(**json.loads((schema.metadata or {})[_MADE]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not written by `tp-retrieval embed-corpus` ({error!r})") from error


def read_shards(folder: Path) -> Iterator[Shard]:
    """Yield a folder's shards in order; raise `InputError` naming a file that is damaged or made by another embedder."""
    first: Made | None = None
    for file in shard_files(folder):
        made = made_of(file)
        first = first or made
        if made.fingerprint != first.fingerprint:
            raise InputError(f"{file}: made by another embedder ({made.fingerprint}) than the others ({first.fingerprint})")
        yield Shard(*_read(file, made), made)


def _read(file: Path, made: Made) -> tuple[list[Document], Float32Array]:
    try:
        table = pq.read_table(file, columns=list(_COLUMNS))
        ids, texts, metadata = (table[name].to_pylist() for name in ("id", "text", "metadata"))
        documents = [Document(text, json.loads(known), id_) for id_, text, known in zip(ids, texts, metadata, strict=True)]
        flat = table["vector"].combine_chunks().values.to_numpy(zero_copy_only=False)
        return documents, np.asarray(flat, dtype=np.float32).reshape(len(documents), made.dimension)
    except (pa.ArrowException, OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: can't be read ({error})") from error


def ids_in(files: Sequence[Path]) -> list[str]:
    """Return the ids of all shards, in order."""
    return [id_ for file in files for id_ in pq.read_table(file, columns=["id"])["id"].to_pylist()]
