"""An embedder without a model, so that index tests are exact and fast."""

import hashlib
import re
from dataclasses import replace

import numpy as np

from tp_retrieval.types import Document, Provenance, VectorView

WORDS = ("cat", "dog", "house", "tree", "river", "stone", "book", "light", "water", "bread", "train", "cloud")


def documents(count=70, seed=0):
    """Return documents d0, d1 … of 7 to 15 words, all different."""
    rng = np.random.default_rng(seed)
    return [Document(" ".join(rng.choice(WORDS, 6 + i % 9)) + f" {i}", {}, f"d{i}") for i in range(count)]


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

    def count_tokens(self, text):
        return len(text.split())

    def _vector(self, text):
        vector = np.zeros(16)
        for word in re.findall(r"\w+", text.lower()):
            vector[hashlib.sha256(word.encode()).digest()[0] % 16] += 1
        return vector + 0.01


class ToyWithStretches(ToyEmbedder):
    """A ToyEmbedder that also gives stretches of two words, for the map `within:K`."""

    def embed_with_stretches(self, texts, wanted, *, sampled=(), show_progress=False):
        width = self.dimension // self.views
        vectors = self.embed_documents(texts)
        for row, views in zip(vectors, wanted, strict=True):
            if sampled and not {*sampled} & {*views}:
                for view in sampled:
                    row[width * view : width * (view + 1)] = np.nan
        return vectors, [
            {view: self.stretches(text)[:, width * view : width * (view + 1)] for view in views}
            for text, views in zip(texts, wanted, strict=True)
        ]

    views = 1

    def stretches(self, text):
        words = text.split() or [""]
        counts = [self._vector(" ".join(words[i : i + 2])) for i in range(0, len(words), 2)]
        return np.array(counts, dtype=np.float32)


class StretchEmbedder(ToyWithStretches):
    """Two views of 16 numbers, the counts and their squares, with the map `within:K`."""

    dimension = 32
    views = 2
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
        return self._with_squares(super().embed_documents(texts))

    def embed_queries(self, texts):
        return self.embed_documents(texts)

    def stretches(self, text):
        return self._with_squares(super().stretches(text))

    def _with_squares(self, counts):
        return np.concatenate([counts, counts**2], axis=1)


class SampledEmbedder(StretchEmbedder):
    """A StretchEmbedder of whose second view an index reads 24 documents."""

    provenance = replace(
        StretchEmbedder.provenance,
        views=(VectorView(16, "within:8"), VectorView(16, "within:4", 0.5, asymmetric=True, sample=24)),
    )
