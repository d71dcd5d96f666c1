"""The public records, the protocols between layers, and checks of texts and vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import InputError

Float32Array = NDArray[np.float32]
Role = Literal["query", "document"]
Stretches = Mapping[int, Float32Array]
"""Raw vectors `(stretches, width)` of the stretches of one document's text, by the number of the view."""

FORMAT_2 = "2:"
"""The prefix of fingerprints of the present format; those of format 1 are 32 hexadecimal digits alone."""


@dataclass(frozen=True)
class Document:
    """A text with metadata, any JSON object; with `id` None the index assigns one."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Hit:
    """A search result: its document, score (higher is better), rank from 1, and the parts of the score.

    `parts` may hold `dense` (cosine, -1 to 1), `lexical` (BM25, 0 and up), and after reranking `rerank` (in the method's
    unit) and `retrieval` (the score before). `context` are the documents around it in its file, itself among them, where
    the search was asked to `expand` its hits. `relevance` is an estimate from `dense` and `lexical` of how likely the
    document is relevant, 0 to 1, which can be compared between queries; None for a hit that no index found.
    """

    document: Document
    score: float
    rank: int
    parts: Mapping[str, float] = field(default_factory=dict)
    context: tuple[Document, ...] = ()
    relevance: float | None = None

    @property
    def passage(self) -> str:
        """The text of the context, of the document alone where there is none."""
        return "\n\n".join(document.text for document in self.context) or self.document.text


@dataclass(frozen=True)
class VectorView:
    """One part of an embedder's raw vector: its width, the map an index fits to it, and its weight.

    `asymmetric` says that stretches of documents are read as queries for the map `within:K`, which then has a mean of its
    own for queries. With `sample` an index reads the part of so many documents, and predicts it for the others from the
    first part.
    """

    width: int
    postprocess: str = "none"
    weight: float = 1.0
    asymmetric: bool = False
    sample: int | None = None


@dataclass(frozen=True)
class Provenance:
    """The origin of raw vectors, so that an index can name what differs when it is opened with another embedder.

    `source` is what `Embedder.from_pretrained` takes to load the model again; None is the embedded default. `settings` are
    its other arguments, of those that JSON holds: the device that was asked for, and `model_kwargs`. `unit` means that each
    view was scaled to unit length.
    """

    model: str
    source: str | None
    revision: str | None
    weights: str
    dtype: str
    recipe: Mapping[str, Any]
    views: tuple[VectorView, ...]
    unit: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """The identity of an embedder in an index: its fingerprint and provenance."""

    fingerprint: str
    provenance: Provenance


class TextEmbedder(Protocol):
    """An embedder as an index needs it: vectors `(n, dimension) float32` of queries and documents, and a fingerprint."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def fingerprint(self) -> str:
        """Equal for two embedders exactly if they give equal vectors."""

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a query."""

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a document."""


@dataclass(frozen=True)
class PrecomputedVectors:
    """The identity of vectors from elsewhere, in place of an embedder; an index of them embeds no text."""

    dimension: int
    fingerprint: str

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Raise `InputError`."""
        raise InputError(
            f"texts: vectors of {self.fingerprint!r} are precomputed; call add with vectors=, or search_by_vector"
        )

    embed_documents = embed_queries


@runtime_checkable
class EmbedsStretches(Protocol):
    """An embedder that gives stretches of documents, on which an index fits the map `within:K`."""

    def embed_with_stretches(
        self,
        texts: Sequence[str],
        wanted: Sequence[Collection[int]],
        *,
        sampled: Collection[int] = (),
        show_progress: bool = False,
    ) -> tuple[Float32Array, list[Stretches]]:
        """Return the vectors of documents, and of each the stretches of the views that are wanted of it.

        The `sampled` views are read of the texts of which one is wanted, and are NaN for the others.
        """


@runtime_checkable
class HasProvenance(Protocol):
    """An embedder with the model and recipe it is made of."""

    @property
    def provenance(self) -> Provenance:
        """The model and the recipe."""


@runtime_checkable
class HasLegacyIdentity(Protocol):
    """An embedder with another fingerprint in earlier versions."""

    def legacy_identity(self) -> Identity:
        """Return the identity that an earlier version stored."""


@runtime_checkable
class HitReranker(Protocol):
    """A reranker as a search needs it."""

    @property
    def depth(self) -> int:
        """The number of hits to rerank."""

    @overload
    def rerank(self, query: str, hits: Sequence[Hit], top_n: int | None = None) -> list[Hit]: ...

    @overload
    def rerank(
        self, query: list[str] | tuple[str, ...], hits: Sequence[Sequence[Hit]], top_n: int | None = None
    ) -> list[list[Hit]]: ...

    def rerank(self, query: Any, hits: Any, top_n: int | None = None) -> Any:
        """Return a query's hits in a new order, the first `top_n`; a list of queries has a list of hits each."""


def checked_texts(texts: Sequence[str], name: str = "texts") -> list[str]:
    """Return the texts as a list; raise `InputError` naming the first that is no str or can't be encoded as UTF-8."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise InputError(f"{name}: expected a list of texts, got one {type(texts).__name__}")
    listed = list(texts)
    for i, text in enumerate(listed):
        check_text(text, f"{name}[{i}]")
    return listed


def check_text(text: object, name: str) -> None:
    """Raise `InputError` if a value is no str or holds half of a surrogate pair."""
    if not isinstance(text, str):
        raise InputError(f"{name}: expected str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: character {error.start} is the lone surrogate U+{ord(text[error.start]):04X}, which no encoding "
            f"holds; drop it with text.encode('utf-8', 'ignore').decode()"
        ) from error


def checked_vectors(
    raw: Float32Array, count: int, dimension: int, name: str = "vectors", *, unread: NDArray[np.bool_] | bool = False
) -> Float32Array:
    """Return `raw` as `(count, dimension) float32`; raise `InputError` for another shape, NaN or infinity.

    The numbers that were `unread`, `(count, dimension)`, may be NaN.
    """
    array = np.asarray(raw)
    if array.shape != (count, dimension):
        raise InputError(f"{name}: shape {array.shape} must be {(count, dimension)}")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: type {array.dtype} must be floating point")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(array) | unread).all(axis=1))
    if len(bad):
        raise InputError(f"{name}[{bad[0]}]: holds NaN or infinity")
    return array
