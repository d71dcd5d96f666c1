"""Read what LangChain-community's FAISS store saved: `index.faiss` and, if its pickle is trusted, `index.pkl`.

vectors = read_vectors(folder)                # (n, dim) float32
documents = read_documents(folder)            # the pickle, read as data: no class of it is imported
documents, vectors = read_store(folder, trust_pickle=True)   # both, fit for `Index.add`
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.importers.json_values import ADMITTED, json_value
from tp_retrieval.indexing.importers.pickle_reader import Call, Name, read_pickle
from tp_retrieval.indexing.validation import prepared
from tp_retrieval.indexing.vectors.faiss_index import read_all
from tp_retrieval.types import Document, Float32Array, checked_vectors

_STORES = {
    ("langchain_community.docstore.in_memory", "InMemoryDocstore"),
    ("langchain.docstore.in_memory", "InMemoryDocstore"),
}
_DOCUMENTS = {
    ("langchain_core.documents.base", "Document"),
    ("langchain.docstore.document", "Document"),
    ("langchain.schema.document", "Document"),
    ("langchain.schema", "Document"),
}
_BROKEN = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_vectors(folder: Path) -> Float32Array:
    """Return the vectors of `index.faiss`; raise `InputError` if it is missing or unreadable."""
    file = folder / "index.faiss"
    if not file.is_file():
        raise InputError(f"{folder}: holds no index.faiss; give a folder that LangChain's FAISS.save_local wrote")
    return read_all(file)


def read_documents(folder: Path) -> list[Document]:
    """Return the documents of `index.pkl` in the order of the vectors.

    The pickle is read as data: nothing that it names is imported or called. Raises `InputError` for one that names anything
    but LangChain's document classes and values that JSON can hold in some form.
    """
    file = folder / "index.pkl"
    try:
        store, order = cast("Any", read_pickle(file.read_bytes(), ADMITTED | _STORES | _DOCUMENTS))
        records = _state(store, _STORES)["_dict"]
        return [_document(records[order[i]], str(order[i]), f"documents[{i}]") for i in range(len(order))]
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error
    except _BROKEN as error:
        raise InputError(f"{file}: no documents that LangChain's FAISS store saved ({error})") from error


def read_store(folder: Path, *, trust_pickle: bool) -> tuple[list[Document], Float32Array]:
    """Return documents and vectors that an index accepts; raise `InputError` if it would not, or without trust."""
    vectors = read_vectors(folder)
    if not trust_pickle:
        raise InputError(
            f"{folder}: index.faiss holds {len(vectors)} vectors of {vectors.shape[1]} numbers; texts are in index.pkl. "
            "If you trust who wrote it, say so (--trust-pickle, trust_pickle=True): it is read as data, and runs no code"
        )
    documents = read_documents(folder)
    if len(documents) != len(vectors):
        raise InputError(f"{folder}: index.faiss holds {len(vectors)} vectors, index.pkl {len(documents)} documents")
    prepared(documents)
    checked_vectors(vectors, *vectors.shape)
    return documents, vectors


def _document(record: Call, id_: str, name: str) -> Document:
    state = _state(record, _DOCUMENTS)["__dict__"]
    metadata = json_value(state.get("metadata") or {}, f"{name}.metadata")
    return Document(state["page_content"], metadata, id_)


def _state(record: Call, names: Collection[Name]) -> dict[str, Any]:
    if record.callee not in names:
        raise InputError(f"it has a {'.'.join(record.callee)} where a {min(names)[1]} must be")
    state: dict[str, Any] = record.state
    return state
