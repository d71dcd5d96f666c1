"""An embedder without a model, so that index tests are exact and fast."""

import hashlib
import re

import numpy as np

from tp_retrieval.types import Provenance, VectorView


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


class StretchEmbedder(ToyEmbedder):
    """Two views of 16 numbers, the counts and their squares, with stretches of three words for the map `within:K`."""

    dimension = 32
    provenance = Provenance(
        "toy",
        "toy",
        None,
        "w",
        "float32",
        {"views": []},
        (VectorView(16, "within:8"), VectorView(16, "within:4", 0.5, asymmetric=True)),
    )

    def embed_documents(self, texts):
        counts = super().embed_documents(texts)
        return np.concatenate([counts, counts**2], axis=1)

    def embed_with_stretches(self, texts, wanted, *, show_progress=False):
        return self.embed_documents(texts), [
            {view: self._stretches(text)[:, 16 * view : 16 * view + 16] for view in views}
            for text, views in zip(texts, wanted, strict=True)
        ]

    def _stretches(self, text):
        words = text.split() or [""]
        counts = np.array([self._vector(" ".join(words[i : i + 3])) for i in range(0, len(words), 3)])
        return np.concatenate([counts, counts**2], axis=1).astype(np.float32)

    def embed_queries(self, texts):
        return self.embed_documents(texts)
