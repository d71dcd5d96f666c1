"""Documents with their raw vectors in Parquet, as `tp-retrieval embed-corpus` writes them and an index loads them.

One folder of shards, each with the columns id, text, metadata (JSON), vector (float32, of one length) and fingerprint, and
in its schema what made the vectors. A shard is read whole or refused: its pages have checksums, and its schema holds a
digest of what made the vectors and of every row. Shards of earlier versions have neither, but their rows are checked, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from tp_retrieval import Document, Embedder, InputError
from tp_retrieval.indexing.metadata_json import from_json, to_json
from tp_retrieval.sqlite.atomic import atomic_write
from tp_retrieval.types import Float32Array

PLAN = "plan.json"
"""File beside the shards that holds the plan of their job."""
_ORIGIN = b"tp_retrieval"
_DIGEST = b"tp_retrieval_digest"
_COLUMNS = ("id", "text", "metadata", "vector", "fingerprint")


@dataclass(frozen=True)
class ShardOrigin:
    """The embedder of a shard's vectors: what loads it again and distinguishes it from others."""

    fingerprint: str
    dimension: int
    source: str | None
    revision: str | None
    dtype: str
    recipe: dict[str, object]

    @classmethod
    def of(cls, embedder: Embedder) -> ShardOrigin:
        """Return the origin of an embedder's vectors."""
        made_by = embedder.provenance
        recipe = dict(made_by.recipe)
        return cls(embedder.fingerprint, embedder.dimension, made_by.source, made_by.revision, made_by.dtype, recipe)


@dataclass(frozen=True)
class Shard:
    """A part of a corpus: documents and their raw vectors `(n, dimension) float32`."""

    documents: list[Document]
    vectors: Float32Array
    made: ShardOrigin


def write_shard(file: Path, shard: Shard) -> None:
    """Write a shard to a temporary file and rename it, so that a file is whole or absent."""
    made = shard.made
    columns = {
        "id": pa.array([str(document.id) for document in shard.documents], pa.string()),
        "text": pa.array([document.text for document in shard.documents], pa.large_string()),
        "metadata": pa.array([to_json(document.metadata) for document in shard.documents], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(shard.vectors.ravel()), made.dimension),
        "fingerprint": pa.array([made.fingerprint] * len(shard.documents)).dictionary_encode(),
    }
    described = json.dumps(vars(made)).encode()
    table = pa.table(columns)
    table = table.replace_schema_metadata({_ORIGIN: described, _DIGEST: _digest(described, table)})
    with atomic_write(file) as scratch:
        pq.write_table(table, scratch, write_page_checksum=True)


def shard_files(folder: Path) -> list[Path]:
    """Return a folder's shards in order; raise `InputError` if there are none, or its job is unfinished."""
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: no folder of .parquet files")
    plan = folder / PLAN
    planned = len(json.loads(plan.read_text(encoding="utf-8"))["slices"]) if plan.exists() else len(files)
    if len(files) < planned:
        raise InputError(f"{folder}: {len(files)} of {planned} shards are there; run its `embed-corpus` again to the end")
    return files


def origin_of(file: Path) -> ShardOrigin:
    """Return the origin of a shard; raise `InputError` if `embed-corpus` did not write it."""
    try:
        schema = pq.read_schema(file)
        return ShardOrigin(**json.loads((schema.metadata or {})[_ORIGIN]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not written by `tp-retrieval embed-corpus` ({error!r})") from error


def read_shards(folder: Path) -> Iterator[Shard]:
    """Yield a folder's shards in order; raise `InputError` naming a file that is damaged or made by another embedder."""
    first: ShardOrigin | None = None
    for file in shard_files(folder):
        made = origin_of(file)
        first = first or made
        if made.fingerprint != first.fingerprint:
            raise InputError(f"{file}: made by another embedder ({made.fingerprint}) than the others ({first.fingerprint})")
        yield Shard(*_read(file, made), made)


def _read(file: Path, made: ShardOrigin) -> tuple[list[Document], Float32Array]:
    try:
        table = pq.read_table(file, columns=list(_COLUMNS), page_checksum_verification=True)
        columns = {name: table[name].to_pylist() for name in ("id", "text", "metadata", "fingerprint")}
        rows = list(zip(*columns.values(), strict=True))
        documents = [_document(f"{file}, row {number}", made, *row) for number, row in enumerate(rows)]
        vectors = _vectors(file, table["vector"].combine_chunks(), made.dimension)
        _check_digest(file, table)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: can't be read ({error}); embed its rows again") from error
    return documents, vectors


def _document(where: str, made: ShardOrigin, id_: object, text: object, metadata: object, fingerprint: object) -> Document:
    """Return a row's document; raise `InputError` naming the row if a value is missing, misshapen or another model's."""
    if not isinstance(id_, str) or not isinstance(text, str):
        name, value = ("text", text) if isinstance(id_, str) else ("id", id_)
        raise InputError(f"{where}: {name} must be a string, not {type(value).__name__}")
    if fingerprint != made.fingerprint:
        raise InputError(f"{where}: made by another embedder ({fingerprint}) than its file says ({made.fingerprint})")
    if not isinstance(metadata, str):
        raise InputError(f"{where}: metadata must be JSON text, not {type(metadata).__name__}")
    try:
        fields = from_json(metadata)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: metadata is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: metadata must be a JSON object, not {type(fields).__name__}")
    return Document(text, fields, id_)


def _vectors(file: Path, column: pa.FixedSizeListArray, dimension: int) -> Float32Array:
    """Return the vectors `(n, dimension) float32`; raise `InputError` naming a row whose vector is null or not finite."""
    kind = pa.list_(pa.float32(), dimension)
    if column.type != kind:
        raise InputError(f"{file}: its vectors are {column.type}, its schema says {dimension} float32 each")
    _refuse_rows(file, np.asarray(column.is_null()), "null")
    flat = column.flatten().to_numpy(zero_copy_only=False)  # a null number becomes NaN
    vectors: Float32Array = np.asarray(flat, dtype=np.float32).reshape(len(column), dimension)
    _refuse_rows(file, np.logical_not(np.isfinite(vectors).all(axis=1)), "null, NaN or infinite in some number")
    return vectors


def _refuse_rows(file: Path, wrong: NDArray[np.bool_], what: str) -> None:
    """Raise `InputError` naming the first row that `wrong` marks."""
    if wrong.any():
        raise InputError(f"{file}, row {int(np.argmax(wrong))}: its vector is {what}; embed it again")


def _check_digest(file: Path, table: pa.Table) -> None:
    """Raise `InputError` if a shard's rows do not have its stored digest."""
    metadata = table.schema.metadata or {}
    stored = metadata.get(_DIGEST)
    computed = _digest(metadata[_ORIGIN], table)
    if stored is not None and stored != computed:
        raise InputError(f"{file}: is damaged (digest stored {stored!r}, found {computed!r}); embed its rows again")


def _digest(described: bytes, table: pa.Table) -> bytes:
    """Return a digest of a shard's origin and of all its values, independent of how pages encode them."""
    digest = xxhash.xxh3_128(described)
    for name in _COLUMNS:
        column = table[name].combine_chunks()
        if name == "vector":
            digest.update(np.ascontiguousarray(column.flatten().to_numpy(zero_copy_only=False)).data)
            continue
        for value in column.to_pylist():
            encoded = str(value).encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest().encode()
