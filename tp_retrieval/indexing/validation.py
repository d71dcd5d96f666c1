"""What an index accepts: documents are validated whole before anything changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.metadata_json import check_key, to_json
from tp_retrieval.indexing.storage.documents import PreparedDocument
from tp_retrieval.indexing.storage.metadata_index import check_size
from tp_retrieval.types import Document, check_text

_MOST_LEVELS = 100  # of metadata; JSON is read and written by recursion
_SMALL = 8192  # characters of metadata that can't have too many facts, however they are nested


def prepared(documents: Sequence[Document | str], namespace: str = "") -> list[PreparedDocument]:
    """Return validated documents for a namespace; raise `InputError` naming the first bad one by position."""
    check_text(namespace, "namespace")
    if isinstance(documents, (str, bytes, Document)) or not isinstance(documents, Iterable):
        raise InputError(f"documents: expected a list, got one {type(documents).__name__}; put it into a list")
    valid: list[PreparedDocument] = []
    positions: dict[str, int] = {}
    for i, item in enumerate(documents):
        if not isinstance(item, (Document, str)):
            raise InputError(f"documents[{i}]: expected Document or str, got {type(item).__name__}")
        document = Document(item) if isinstance(item, str) else item
        check_text(document.text, f"documents[{i}].text")
        id_ = uuid.uuid4().hex if document.id is None else document.id
        check_text(id_, f"documents[{i}].id")
        if id_ in positions:
            raise InputError(f"documents[{i}].id: {id_!r} is documents[{positions[id_]}].id too; one add takes an id once")
        positions[id_] = i
        metadata = _copied_metadata(document.metadata, f"documents[{i}].metadata")
        text = _json_of(metadata, f"documents[{i}].metadata")
        valid.append(PreparedDocument(id_, document.text, metadata, text, namespace))
    return valid


def _copied_metadata(metadata: object, name: str) -> dict[str, Any]:
    """Return a copy that nobody else can change between validation and commit."""
    if not isinstance(metadata, Mapping):
        raise InputError(f"{name}: expected a mapping, got {type(metadata).__name__}")
    copy: dict[str, Any] = _copied(dict(metadata), name, _MOST_LEVELS)
    return copy


def _copied(value: Any, name: str, levels: int) -> Any:
    if isinstance(value, (dict, list)) and levels == 0:
        raise InputError(f"{name}: nested more than {_MOST_LEVELS} deep")
    if isinstance(value, list):
        return [_copied(item, name, levels - 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key in value:
            check_key(key, name)
        return {key: _copied(item, name, levels - 1) for key, item in value.items()}
    if isinstance(value, (dict, tuple)):
        raise InputError(f"{name}: JSON would change it; use str keys, lists for tuples, and plain values")
    return value


def _json_of(metadata: dict[str, Any], name: str) -> str:
    try:
        text = to_json(metadata)
        text.encode()  # a lone surrogate has no bytes
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: JSON can't hold it ({error})") from error
    if len(text) > _SMALL:
        check_size(metadata, name)
    return text


def check_page(limit: int | None, offset: int) -> None:
    """Raise `InputError` for a page of documents that is none."""
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise InputError(f"{name}: {value!r} must be a number of documents, 0 or more")
