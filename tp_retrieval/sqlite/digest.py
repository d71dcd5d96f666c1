"""Digests of files and of records, and records compared with theirs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tp_retrieval.errors import CorruptIndexError


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_digest(*values: str | int | bytes) -> bytes:
    """Return the SHA-256 of a record's values, each preceded by its length."""
    parts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return hashlib.sha256(b"".join([len(part).to_bytes(8, "little") + part for part in parts])).digest()


def check_record(file: Path, record: str, digest: bytes, *values: Any) -> None:
    """Raise `CorruptIndexError` with the record's name if its values do not have this digest."""
    if record_digest(*values) != digest:
        raise CorruptIndexError(f"{file}: {record} is damaged; its digest does not fit")
