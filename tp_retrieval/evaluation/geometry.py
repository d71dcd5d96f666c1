"""Anisotropy and effective rank of vectors at every exit, before and after each map.

    geometry(embedder, texts)       # anisotropy and effective rank

`embedding.attention` has the other half of the command `analyze`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.affine import fit_nearest, unit
from tp_retrieval.errors import InputError
from tp_retrieval.evaluation.objectives.objective import sampled_documents
from tp_retrieval.evaluation.sweep import READOUTS, Sweep
from tp_retrieval.types import Float32Array, checked_texts

MAPS = ("none", "center", "abtt:1", "whiten:256", "within:256")


@dataclass(frozen=True)
class Geometry:
    """The mean cosine of a view's unit vectors, and the effective number of their dimensions."""

    exit: int | None
    readout: str
    postprocess: str
    anisotropy: float
    effective_rank: float


def geometry(embedder: Embedder, texts: Sequence[str], *, maps: Sequence[str] = MAPS) -> list[Geometry]:
    """Return anisotropy and effective rank of documents' vectors at every exit, for each readout and map.

    Anisotropy is the mean cosine of two different texts (Ethayarajh, EMNLP 2019), 1 where all point the same way. Effective
    rank is the exponential of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007).
    """
    checked = checked_texts(texts)
    if len(checked) < 2:
        raise InputError(f"texts: {len(checked)} are too few to compare")
    recipe, sweep, geometries = embedder.recipe, Sweep(embedder), []
    sampled = sampled_documents(checked) if any(name.startswith("within") for name in maps) else None
    try:
        template, query = recipe.document[0].source, recipe.query[0].source
        states = sweep.states(template, recipe.prepend, checked, query=query, sampled=sampled)
    finally:
        sweep.close()
    for exit_ in states.exits[1:]:
        for readout in READOUTS:
            raw = states.view(exit_, readout)
            for name in maps:
                vectors = unit(fit_nearest(name, raw, states.stretches_of(exit_, readout))(raw))
                geometries.append(Geometry(exit_, readout, name, mean_cosine(vectors), effective_rank(vectors)))
    return geometries


def mean_cosine(vectors: Float32Array) -> float:
    """Return the mean cosine of two different rows of unit vectors `(n, dim)`."""
    exact, count = vectors.astype(np.float64), len(vectors)
    total = exact.sum(axis=0)
    return float((total @ total - np.square(exact).sum()) / (count * (count - 1)))


def effective_rank(vectors: Float32Array) -> float:
    """Return the exponential of the entropy of the singular values of `(n, dim)`: from 1 to the rank."""
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = values[values > 1e-12 * values.max()] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
