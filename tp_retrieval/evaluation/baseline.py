"""The baseline: a trained sentence-transformers model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tp_retrieval.errors import InputError, OptionalDependencyError
from tp_retrieval.types import Float32Array


class TrainedEmbedder:
    """A sentence-transformers model, by name or folder, with its prompts.

    Raises `OptionalDependencyError` if sentence-transformers is missing, `InputError` if the model can't be loaded.
    """

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise OptionalDependencyError("sentence-transformers", "sentence-transformers") from error
        try:
            self._model = SentenceTransformer(name)
        except (OSError, ValueError) as error:
            raise InputError(f"--against: {name} can't be loaded ({' '.join(str(error).split())})") from error
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = name

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`."""
        return np.asarray(self._model.encode_query(list(texts), show_progress_bar=False), dtype=np.float32)

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`."""
        return np.asarray(self._model.encode_document(list(texts), show_progress_bar=False), dtype=np.float32)
