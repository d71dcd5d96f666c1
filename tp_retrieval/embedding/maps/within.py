"""The within-document map: it shrinks the directions in which stretches of one document differ, and keeps the others.

This is linear discriminant analysis with every document a class of which stretches of its text are the members: the
normalisation by the covariance within classes that speaker verification does (WCCN, Hatch et al., Interspeech 2006), then
the principal directions of the documents. It needs no query, no label and no gradient.

    stretches = ViewStretches(vectors, documents)      # vectors (n, width) of stretches, and the document of each
    directions(covariance, stretches, 256)             # (width, 256), of documents with this covariance
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.types import EmbedsStretches, Float32Array, VectorView

FEWEST = 8
"""Documents of several stretches from which on the map is fitted; it beat centring from 4 documents on."""

LARGEST_SAMPLE = 1_000_000
"""The largest sample of a view."""

SAMPLE, SAMPLE_ASYMMETRIC = 512, 256
"""Documents that give stretches of a view; half as many lose about half a point of nDCG@10."""

_TOKENS, _SHORTEST = 24, 6  # of a stretch; 6 to 48 measured alike
_MOST, _MOST_ASYMMETRIC = 8, 3  # stretches of a document
_EPSILON, _EPSILON_ASYMMETRIC = 0.003, 0.03  # share of the largest eigenvalue added before shrinking
_NONE = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class ViewStretches:
    """The stretches of one view: raw vectors `(n, width)`, and the number of each one's document `(n,)`.

    `asymmetric` says that they were read as texts of their own, through the query template, and not in their document's
    pass.
    """

    vectors: Float32Array
    documents: NDArray[np.int64]
    asymmetric: bool = False

    @property
    def count(self) -> int:
        """Documents that have stretches."""
        return len(np.unique(self.documents))

    def mean(self) -> Float32Array:
        """Return the mean stretch `(width,)`."""
        mean: Float32Array = self.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    def scatter(self) -> NDArray[np.float64]:
        """Return the covariance `(width, width)` of the stretches about their document's mean stretch."""
        _, owner, counts = np.unique(self.documents, return_inverse=True, return_counts=True)
        means = np.zeros((len(counts), self.vectors.shape[1]))
        np.add.at(means, owner, self.vectors)
        deviations = self.vectors - (means / counts[:, None])[owner]
        products: NDArray[np.float64] = deviations.T @ deviations / len(deviations)
        return products

    def of(self, documents: NDArray[np.int64]) -> ViewStretches:
        """Return the stretches of some documents, which are numbered anew by their order."""
        position = {int(document): i for i, document in enumerate(documents)}
        kept = np.array([int(document) in position for document in self.documents], dtype=bool)
        numbers = np.array([position[int(document)] for document in self.documents[kept]], dtype=np.int64)
        return ViewStretches(self.vectors[kept], numbers, self.asymmetric)


def directions(covariance: NDArray[np.float64], stretches: ViewStretches, kept: int) -> tuple[NDArray[np.float64], float]:
    """Return the matrix `(width, kept)` of the map, and the largest standard deviation within documents.

    With `S = V diag(l) Vᵀ` the scatter of the stretches it is `A B`, where `A = V / sqrt(l + ε max(l))` and B are the first
    principal directions of documents mapped by A; `covariance` is that of the documents.
    """
    values, vectors = np.linalg.eigh(stretches.scatter())  # ascending
    largest = max(float(values[-1]), 0.0)
    epsilon = _EPSILON_ASYMMETRIC if stretches.asymmetric else _EPSILON
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        shrinking = vectors / np.sqrt(values.clip(min=0.0) + epsilon * largest)
        between = shrinking.T @ covariance @ shrinking
    if not np.isfinite(between).all():
        return shrinking[:, :kept], np.sqrt(largest)
    principal = np.linalg.eigh(between)[1][:, ::-1][:, :kept]
    return shrinking @ principal, np.sqrt(largest)


# -- which texts give stretches, and where those lie


def needed_views(views: Sequence[VectorView]) -> frozenset[int]:
    """Return the numbers of the views that have a sample: to fit a map on stretches, or since no more are read."""
    return sampled_views(views) | {i for i, view in enumerate(views) if view.postprocess.startswith("within")}


def sampled_views(views: Sequence[VectorView]) -> frozenset[int]:
    """Return the numbers of the views that are read of a sample of documents alone."""
    return frozenset(i for i, view in enumerate(views) if view.sample is not None)


def is_sample(sample: object) -> bool:
    """Return whether a value can be the number of documents that a view is read of."""
    return isinstance(sample, int) and not isinstance(sample, bool) and FEWEST <= sample <= LARGEST_SAMPLE


def whole_first(samples: Sequence[int | None]) -> bool:
    """Return whether the first of some views, and all before one that has a sample, are read of every document."""
    sampled = [sample is not None for sample in samples]
    return sampled[:1] != [True] and sampled == sorted(sampled)


def sample_size(view: VectorView) -> int:
    """Return how many documents are a view's sample, and give its stretches: those of the lowest priority."""
    if view.sample is not None:
        return view.sample
    return SAMPLE_ASYMMETRIC if view.asymmetric else SAMPLE


def priority_of(text: str) -> int:
    """Return a digest of a text, below 2 to the 63rd: the lower it is, the sooner the text belongs to a sample."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def ranges(tokens: int, *, asymmetric: bool = False) -> list[tuple[int, int]]:
    """Return the stretches of a text of so many tokens: equal parts of about 24, at most 8, if `asymmetric` 3 of those."""
    count = max(1, min(round(tokens / _TOKENS), _MOST))
    if count == 1 and tokens >= 2 * _SHORTEST:
        count = 2
    edges = np.linspace(0, tokens, count + 1).round().astype(int).tolist()
    parts = list(pairwise(edges))
    if asymmetric and count > _MOST_ASYMMETRIC:
        parts = [parts[i] for i in np.linspace(0, count - 1, _MOST_ASYMMETRIC).round().astype(int)]
    return parts


def sample(texts: Sequence[str], views: Sequence[VectorView]) -> list[frozenset[int]]:
    """Return for each text the views to whose sample it belongs; of equal texts the first one does."""
    chosen = unread_of_sample(by_priority(enumerate(texts)), views, {})
    return [chosen.get(i, frozenset()) for i in range(len(texts))]


def by_priority(texts: Iterable[tuple[int, str]]) -> dict[int, int]:
    """Return the number of the text of each priority, of equal texts the first one's."""
    numbers: dict[int, int] = {}
    for number, text in texts:
        numbers.setdefault(priority_of(text), number)
    return numbers


def unread_of_sample(
    numbers: Mapping[int, int], views: Sequence[VectorView], read: Mapping[int, Set[int]]
) -> dict[int, frozenset[int]]:
    """Return the texts that belong to a view's sample and were not read for it, each with those views.

    `numbers` are the texts by priority, `read` the priorities of those that were read, by view.
    """
    unread: dict[int, set[int]] = {}
    for view in needed_views(views):
        of_view = read.get(view, set())
        for priority in sorted(of_view | numbers.keys())[: sample_size(views[view])]:
            if priority not in of_view:
                unread.setdefault(numbers[priority], set()).add(view)
    return {number: frozenset(of_text) for number, of_text in unread.items()}


def embed_sample(
    embedder: EmbedsStretches, texts: Sequence[str], views: Sequence[VectorView]
) -> tuple[Float32Array, dict[int, ViewStretches]]:
    """Return the vectors of documents, and of each view that needs some the stretches of the sample of documents."""
    raw, stretches = embedder.embed_with_stretches(texts, sample(texts, views))
    return raw, {
        view: joined({i: of_text[view] for i, of_text in enumerate(stretches) if view in of_text}, views[view].asymmetric)
        for view in needed_views(views)
    }


def joined(stretches: Mapping[int, Float32Array], asymmetric: bool) -> ViewStretches:
    """Return the stretches `(s, width)` of numbered documents as one array, without documents of a single one."""
    several = {number: vectors for number, vectors in stretches.items() if len(vectors) > 1}
    numbers = np.repeat(np.array(list(several), dtype=np.int64), [len(vectors) for vectors in several.values()])
    return ViewStretches(np.concatenate([*several.values()] or [_NONE]), numbers, asymmetric)
