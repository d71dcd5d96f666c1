"""Raw vectors of documents, and stretches of those that an index's maps are fitted on, by the index's embedder.

vectors, stretches = embed_documents(embedder, texts, wanted, views, show_progress=True)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from tqdm.auto import tqdm

from tp_retrieval.embedding.maps.affine import split
from tp_retrieval.embedding.maps.within import sampled_views
from tp_retrieval.types import EmbedsStretches, Float32Array, Stretches, TextEmbedder, VectorView, checked_vectors

_PROGRESS_BATCH = 256  # texts embedded between two updates of a progress bar

Wanted = Sequence[Collection[int]]
"""The views of which stretches are wanted, for each text."""


def embed_documents(
    embedder: TextEmbedder,
    texts: Sequence[str],
    wanted: Wanted | None,
    views: Sequence[VectorView],
    *,
    show_progress: bool = False,
) -> tuple[Float32Array, list[Stretches] | None]:
    """Return raw vectors `(n, sum of widths)` and the stretches that are wanted; with `wanted` None there are none.

    Views that are read of a sample alone are NaN for the documents of which no stretches of such a view are wanted.
    Raises `InputError` for vectors or stretches of another shape, with NaN or infinity.
    """
    if not show_progress:
        return _embed(embedder, texts, wanted, views)
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    unique = list(dict.fromkeys(texts))  # equal texts in different batches would get slightly different vectors
    wanted = None if wanted is None else [wanted[first[text]] for text in unique]
    parts: list[Float32Array] = []
    stretches: list[Stretches] = []
    with tqdm(total=len(unique), unit="text") as bar:
        for begin in range(0, len(unique), _PROGRESS_BATCH):
            part = slice(begin, begin + _PROGRESS_BATCH)
            vectors, of_part = _embed(embedder, unique[part], None if wanted is None else wanted[part], views)
            parts.append(vectors)
            stretches += of_part or []
            bar.update(len(vectors))
    row = {text: i for i, text in enumerate(unique)}
    rows = [row[text] for text in texts]
    return np.concatenate(parts)[rows], None if wanted is None else [stretches[i] for i in rows]


def _embed(
    embedder: TextEmbedder, texts: Sequence[str], wanted: Wanted | None, views: Sequence[VectorView]
) -> tuple[Float32Array, list[Stretches] | None]:
    dimension = sum(view.width for view in views)
    if wanted is None or not isinstance(embedder, EmbedsStretches):
        return checked_vectors(embedder.embed_documents(texts), len(texts), dimension), None
    sampled = sampled_views(views)
    vectors, stretches = embedder.embed_with_stretches(texts, wanted, sampled=sampled)
    _check_stretches(stretches, views)
    unread = np.zeros((len(texts), dimension), dtype=bool)
    without = [sampled.isdisjoint(of_text) for of_text in wanted]
    for view in sampled:
        split(unread, views)[view][without] = True
    return checked_vectors(vectors, len(texts), dimension, unread=unread), stretches


def _check_stretches(stretches: Sequence[Stretches], views: Sequence[VectorView]) -> None:
    """Raise `InputError` for stretches of another width than their view, or with NaN or infinity."""
    for i, of_text in enumerate(stretches):
        for view, vectors in of_text.items():
            checked_vectors(vectors, len(vectors), views[view].width, f"stretches[{i}]")
