"""Read what LangChain-community's FAISS store saved: `index.faiss` and, if its pickle is trusted, `index.pkl`.

vectors = read_vectors(folder)                # (n, dim) float32
documents = read_documents(folder)            # the pickle, by an unpickler that makes nothing but records
documents, vectors = read_store(folder, trust_pickle=True)   # both, fit for `Index.add`
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.validation import prepared
from tp_retrieval.indexing.vectors.faiss_index import read_all
from tp_retrieval.types import Document, Float32Array, checked_vectors

_CLASSES = {
    ("langchain_community.docstore.in_memory", "InMemoryDocstore"),
    ("langchain.docstore.in_memory", "InMemoryDocstore"),
    ("langchain_core.documents.base", "Document"),
    ("langchain.docstore.document", "Document"),
    ("langchain.schema.document", "Document"),
    ("langchain.schema", "Document"),
}
_BROKEN = (pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError)


def read_vectors(folder: Path) -> Float32Array:
    """Return the vectors of `index.faiss`; raise `InputError` if it is missing or unreadable."""
    file = folder / "index.faiss"
    if not file.is_file():
        raise InputError(f"{folder}: holds no index.faiss; give a folder that LangChain's FAISS.save_local wrote")
    return read_all(file)


def read_documents(folder: Path) -> list[Document]:
    """Return the documents of `index.pkl` in the order of the vectors.

    Raises `InputError` for a pickle that names anything but LangChain's document classes; of those, too, only the state is
    read, and no code of theirs runs.
    """
    file = folder / "index.pkl"
    try:
        with file.open("rb") as stream:
            store, order = _Unpickler(stream).load()
        documents = store.state["_dict"]
        listed = [(str(order[i]), documents[order[i]].state["__dict__"]) for i in range(len(order))]
        return [Document(state["page_content"], dict(state.get("metadata") or {}), id_) for id_, state in listed]
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
            "If you trust who wrote it, say so (--trust-pickle, trust_pickle=True): it is read with document classes only"
        )
    documents = read_documents(folder)
    if len(documents) != len(vectors):
        raise InputError(f"{folder}: index.faiss holds {len(vectors)} vectors, index.pkl {len(documents)} documents")
    prepared(documents)
    checked_vectors(vectors, *vectors.shape)
    return documents, vectors


class _Record:
    """Stand for an object of an admitted class: what it was made of, and nothing else."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Admit LangChain's document classes, as records."""

    def find_class(self, module: str, name: str) -> type[_Record]:
        """Return the stand-in for an admitted class; refuse everything else."""
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no document class")
        return _Record
