"""Copying an index into any other LangChain vector store with its stored vectors.

embeddings = TPIndexEmbeddings(index)
store = Chroma("faq", embedding_function=embeddings, collection_metadata={"hnsw:space": "cosine"})
copy_index(index, store, embeddings)
store.similarity_search("Why is my program slow?")      # embedded and mapped as the index does
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from tp_retrieval import Index
from tp_retrieval.indexing.metadata_json import iso_of
from tp_retrieval.types import Float32Array


class TPIndexEmbeddings(Embeddings):
    """Embed for another store with an index's model and fitted maps; the index must stay open."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._copied: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one unit vector a document; texts being copied are not embedded again."""
        by_text = dict(self._copied)
        missing = [text for text in dict.fromkeys(texts) if text not in by_text]
        if missing:
            vectors = self._index.map_vectors(self._index.embedder.embed_documents(missing))
            by_text |= dict(zip(missing, vectors.tolist(), strict=True))
        return [by_text[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of a query."""
        raw = self._index.embedder.embed_queries([text])
        vector: list[float] = self._index.map_vectors(raw, role="query")[0].tolist()
        return vector

    @contextmanager
    def knowing(self, texts: Sequence[str], vectors: Float32Array) -> Iterator[None]:
        """Return these stored vectors for these texts inside the `with` block."""
        self._copied = dict(zip(texts, vectors.tolist(), strict=True))
        try:
            yield
        finally:
            self._copied = {}


def copy_index(
    index: Index,
    store: VectorStore,
    embeddings: TPIndexEmbeddings,
    *,
    namespace: str = "",
    batch: int = 256,
    flat: bool = False,
    progress: Path | None = None,
    on_progress: Callable[[int], object] | None = None,
    told: Callable[[int], object] | None = None,
) -> int:
    """Add the documents of an index's namespace to a store that embeds with `embeddings`, and return how many were added.

    Ids are kept, so a document of the same id is replaced. `flat` writes nested metadata as JSON strings, for
    stores that hold plain values alone. `progress` is a file by which an interrupted copy continues, if both sides are
    unchanged; it is removed at the end. `on_progress` (formerly `told`) is called with the number of documents of each
    batch. Raises `IncompatibleIndexError` if the index fits other maps meanwhile; a new copy replaces all documents.
    """
    on_progress = on_progress or told
    maps = index.info().maps_digest
    after = None if progress is None else _last(progress, index, namespace, store, maps)
    copied = 0
    for documents, vectors in index.batches(batch, after=after, namespace=namespace):
        texts = [document.text for document in documents]
        metadata = [_flat(document.metadata) if flat else dict(document.metadata) for document in documents]
        with embeddings.knowing(texts, vectors):
            store.add_texts(texts, metadata, ids=[str(document.id) for document in documents])
        copied += len(documents)
        if progress is not None:
            progress.write_text(json.dumps({"last": documents[-1].id, "maps": maps}), encoding="utf-8")
        if on_progress is not None:
            on_progress(len(documents))
    if progress is not None:
        progress.unlink(missing_ok=True)
    return copied


def _last(progress: Path, index: Index, namespace: str, store: VectorStore, maps: str) -> str | None:
    """Return the id of the last document copied; None if either side changed or can't be compared."""
    try:
        record = json.loads(progress.read_text(encoding="utf-8"))
        last = str(record["last"])
        unchanged = record["maps"] == maps and index.get([last], namespace=namespace) and store.get_by_ids([last])
    except (FileNotFoundError, ValueError, KeyError, TypeError, NotImplementedError):
        return None
    return last if unchanged else None


def _flat(metadata: Mapping[str, object]) -> dict[str, object]:
    return {name: _flat_value(value) for name, value in metadata.items()}


def _flat_value(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value, default=iso_of)
