"""What an index accepts: everything is checked before anything changes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.metadata_index import check_size
from tp_retrieval.types import Document, check_text

_DEEPEST = 100  # levels of metadata; JSON is read and written by recursion
_SMALL = 8192  # characters of metadata that can't make too many facts, however they are nested


def prepared(documents: Sequence[Document | str]) -> list[tuple[str, str, str]]:
    """Return documents as `(id, text, metadata JSON)`; raise `InputError` naming the first bad one by position."""
    if isinstance(documents, (str, bytes, Document)) or not isinstance(documents, Iterable):
        raise InputError(f"documents: expected a list, got one {type(documents).__name__}; put it into a list")
    rows: list[tuple[str, str, str]] = []
    seen: dict[str, int] = {}
    for i, given in enumerate(documents):
        if not isinstance(given, (Document, str)):
            raise InputError(f"documents[{i}]: expected Document or str, got {type(given).__name__}")
        document = Document(given) if isinstance(given, str) else given
        check_text(document.text, f"documents[{i}].text")
        id_ = uuid.uuid4().hex if document.id is None else document.id
        check_text(id_, f"documents[{i}].id")
        if id_ in seen:
            raise InputError(f"documents[{i}].id: {id_!r} is documents[{seen[id_]}].id too; one add takes an id once")
        seen[id_] = i
        rows.append((id_, document.text, _metadata_json(document.metadata, f"documents[{i}].metadata")))
    return rows


def _metadata_json(metadata: object, name: str) -> str:
    if not isinstance(metadata, Mapping):
        raise InputError(f"{name}: expected a mapping, got {type(metadata).__name__}")
    plain = dict(metadata)
    if _deeper(plain, _DEEPEST):
        raise InputError(f"{name}: nested more than {_DEEPEST} deep")
    try:
        text = json.dumps(plain, allow_nan=False, sort_keys=True, ensure_ascii=False)
        text.encode()  # a lone surrogate has no bytes
        same = json.loads(text) == plain
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: JSON can't hold it ({error})") from error
    if not same:
        raise InputError(f"{name}: JSON would change it; use str keys, lists for tuples, and plain values")
    if len(text) > _SMALL:
        check_size(plain, name)
    return text


def _deeper(value: object, levels: int) -> bool:
    """Return whether lists and mappings lie in each other more levels deep."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (Mapping, list, tuple))
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, (Mapping, list, tuple))
        ]
        if not layer:
            return False
    return True
