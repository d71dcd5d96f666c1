"""An embedder of unit vectors, for frameworks that store vectors as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.affine import is_unread, split, unit
from tp_retrieval.types import Float32Array, Provenance, Stretches


def scaled(embedder: Embedder, *, unit: bool) -> Embedder:
    """Return an embedder of the same weights and recipe whose views are of unit length, or are not."""
    if embedder.fitted or isinstance(embedder, UnitEmbedder) == unit:
        return embedder
    return UnitEmbedder.of(embedder) if unit else Embedder(embedder.backbone, embedder.recipe)


class UnitEmbedder(Embedder):
    """An embedder of unit vectors, every view of unit length and weighted. An index still fits its maps on them.

    Whitening views of unit length was measured to be as good as whitening raw ones.
    """

    @classmethod
    def of(cls, embedder: Embedder) -> Embedder:
        """Return an embedder of unit vectors that shares the weights: the same one if its maps are fitted."""
        if embedder.fitted or isinstance(embedder, UnitEmbedder):
            return embedder
        return cls(embedder.backbone, embedder.recipe)

    @cached_property
    def provenance(self) -> Provenance:
        """The model and recipe behind the vectors, with `unit` set."""
        return replace(super().provenance, unit=True)

    def _fingerprint_with(self, weights: str) -> str:
        """Return a digest that differs from that of the raw vectors."""
        return hashlib.sha256(f"unit {super()._fingerprint_with(weights)}".encode()).hexdigest()[:32]

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False, processes: int = 1) -> Float32Array:
        """Return one unit vector a text, `(n, dimension) float32`, through the recipe's query templates."""
        return self.normalize(super().embed_queries(texts, show_progress=show_progress, processes=processes))

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False, processes: int = 1) -> Float32Array:
        """Return one unit vector a text, `(n, dimension) float32`, through the recipe's document templates."""
        return self.normalize(super().embed_documents(texts, show_progress=show_progress, processes=processes))

    def embed_with_stretches(
        self,
        texts: Sequence[str],
        wanted: Sequence[Collection[int]],
        *,
        sampled: Collection[int] = (),
        show_progress: bool = False,
    ) -> tuple[Float32Array, list[Stretches]]:
        """Return unit vectors of documents, and stretches of which every view has the length that it has in those.

        The views of a document of which the `sampled` ones are not read have the lengths that they have in a whole vector.
        """
        raw, stretches = super().embed_with_stretches(texts, wanted, sampled=sampled, show_progress=show_progress)
        total = sum(view.weight for view in self.raw_views)
        lengths = [np.float32(np.sqrt(view.weight / total)) for view in self.raw_views]
        vectors, missing = self.normalize(raw), is_unread(raw)
        parts = [unit(part) * length for part, length in zip(split(raw[missing], self.raw_views), lengths, strict=True)]
        vectors[missing] = np.concatenate(parts, axis=1)
        return vectors, [{i: unit(part) * lengths[i] for i, part in of_text.items()} for of_text in stretches]
