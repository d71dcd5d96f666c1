import numpy as np
import pytest

from tp_retrieval import Document, Index
from tp_retrieval.indexing.storage.store import Store


class Numbered:
    """An embedder whose vectors say which text it was: `(position, length)`."""

    dimension, fingerprint = 2, "numbered"

    def embed_documents(self, texts):
        return np.array([[i + 1, len(text)] for i, text in enumerate(texts)], dtype=np.float32).reshape(-1, 2)

    embed_queries = embed_documents


@pytest.fixture
def filled(tmp_path):
    """Return a function that makes an index of texts by id and gives its open store."""
    stores = []

    def make(texts, metadata=None, tokenizer="words"):
        folder = tmp_path / f"index-{len(stores)}"
        metadata = metadata or [{}] * len(texts)
        with Index.create(folder, Numbered(), tokenizer=tokenizer) as index:
            if texts:
                index.add([Document(t, m, f"d{i}") for i, (t, m) in enumerate(zip(texts, metadata, strict=True), 1)])
        stores.append(Store(folder))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
