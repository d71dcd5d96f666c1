"""Reranking by a trained cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tp_retrieval.errors import InputError, OptionalDependencyError
from tp_retrieval.types import Float32Array


class CrossEncoderScorer:
    """A scorer by a sentence-transformers `CrossEncoder`, given loaded, or by name or folder.

    Raises `OptionalDependencyError` if sentence-transformers is needed and missing.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, str):
            try:
                from sentence_transformers import CrossEncoder
            except ImportError as error:
                raise OptionalDependencyError("sentence-transformers", "sentence-transformers") from error
            model = CrossEncoder(model)
        self._model = model

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair of query and document, `(n,) float32`.

        Raises `InputError` if the model gives more than one number a pair.
        """
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        scores: Float32Array = np.asarray(
            self._model.predict(list(pairs), show_progress_bar=show_progress, convert_to_numpy=True), dtype=np.float32
        )
        if scores.size != len(pairs):
            raise InputError(
                f"method: this cross-encoder gives {scores.shape} numbers for {len(pairs)} pairs, not one each"
            )
        return scores.reshape(len(pairs))
