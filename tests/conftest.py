import hashlib
import re

import numpy as np
import pytest

from tp_retrieval import Embedder, InputError


class ToyEmbedder:
    """16 numbers a text: the hashed counts of its words. Exact, fast, and the same everywhere."""

    dimension = 16

    def __init__(self, fingerprint="toy"):
        self.fingerprint = fingerprint
        self.embedded = []

    def embed_documents(self, texts):
        self.embedded += texts
        return np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(-1, 16)

    embed_queries = embed_documents

    def _vector(self, text):
        vector = np.zeros(16)
        for word in re.findall(r"\w+", text.lower()):
            vector[hashlib.sha256(word.encode()).digest()[0] % 16] += 1
        return vector + 0.01


@pytest.fixture
def toy():
    return ToyEmbedder()


@pytest.fixture(scope="session")
def smol():
    """The embedded model in float32 with the default retrieval recipe."""
    return Embedder.from_pretrained(dtype="float32")


@pytest.fixture(scope="session")
def smol_model():
    """The embedded model as transformers loads it, whole, and its tokenizer; for references."""
    from transformers import AutoModel, AutoTokenizer

    from tp_retrieval.embedding import gguf

    folder = gguf.unpacked(gguf.embedded_model())
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def smol_folder():
    from tp_retrieval.embedding import gguf

    return gguf.unpacked(gguf.embedded_model())


__all__ = ["InputError", "ToyEmbedder"]
