"""An index: documents, their vectors and their words in one folder, searched densely, lexically or both ways."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast, overload

import numpy as np

from tp_retrieval.errors import CorruptIndexError, IndexAccessError, IndexLockedError, InputError
from tp_retrieval.indexing import fusion as fusions
from tp_retrieval.indexing.checks import check_embedder, check_search, checked_vectors, prepared
from tp_retrieval.indexing.image import VectorImage
from tp_retrieval.indexing.store import Store
from tp_retrieval.indexing.vectors import KINDS
from tp_retrieval.types import Document, Float32Array, HasProvenance, Hit, TextEmbedder, VectorView, checked_texts

logger = logging.getLogger(__name__)

Mode = Literal["hybrid", "dense", "lexical"]
Fusion = Literal["convex", "reciprocal-rank"]

DENSE_WEIGHT = 0.4
"""Dense share of a hybrid score; `benchmarks/retrieval.py` measures it."""

_CANDIDATES = 100  # rows that each side brings to a hybrid search, if k is not more


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds and what made it."""

    path: str
    documents: int
    dimension: int
    kind: str
    model: str | None
    source: str | None
    revision: str | None
    fingerprint: str
    recipe: Mapping[str, Any] | None
    postprocess: tuple[str, ...]
    fitted: tuple[str, ...]
    fitted_on: int
    libraries: Mapping[str, str]
    bytes_on_disk: int


class Index:
    """Keep documents searchable. Make one with `create`, open one with `open`, use it as a context manager.

    One index may be used by many threads and opened by many processes; `add` and `delete` are durable when they return,
    and happen wholly or not at all.
    """

    def __init__(self, folder: Path, store: Store, embedder: TextEmbedder | None) -> None:
        self._folder = folder
        self._store = store
        self._lock = threading.RLock()
        self._embedder = embedder
        self._dimension = int(store.meta("dimension"))
        views = [VectorView(**view) for view in store.meta("views")]
        self._image = VectorImage(folder, store, self._dimension, views)
        self._closed = False

    @classmethod
    def create(cls, path: str | Path, embedder: TextEmbedder, *, kind: str = "auto") -> Index:
        """Make an empty index in a folder that holds none; `kind` "auto" is exact search ("flat")."""
        if kind not in ("auto", *KINDS):
            raise InputError(f"kind: {kind!r} must be one of auto, {', '.join(KINDS)}")
        folder = Path(path)
        provenance = embedder.provenance if isinstance(embedder, HasProvenance) else None
        views = (VectorView(embedder.dimension),) if provenance is None else provenance.views
        meta = {
            "kind": "flat",
            "dimension": embedder.dimension,
            "fingerprint": embedder.fingerprint,
            "views": [asdict(view) for view in views],
            "provenance": None if provenance is None else asdict(provenance),
            "libraries": {name: version(name) for name in ("tp-retrieval", "faiss-cpu", "numpy")},
        }
        return cls(folder, Store.create(folder, meta), embedder)

    @classmethod
    def open(cls, path: str | Path, embedder: TextEmbedder | None = None) -> Index:
        """Open an index; without an embedder, the model named in it is loaded when a text must be embedded.

        Raises `IndexNotFoundError`, `CorruptIndexError`, and `IncompatibleIndexError` if the embedder is not the one
        that made the index.
        """
        folder = Path(path)
        store = Store(folder)
        try:
            self = cls(folder, store, None)
            if embedder is not None:
                self._check(embedder)
                self._embedder = embedder
            self._image.load()
        except BaseException:
            store.close()
            raise
        return self

    def close(self) -> None:
        """Write a snapshot of the vectors if they changed, and close the files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._save_image(at_least=1)
            finally:
                self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- changes

    def add(self, documents: Sequence[Document | str], *, show_progress: bool = False) -> list[str]:
        """Embed and add documents, replacing those whose id is there; return their ids. All of them or, on any error, none.

        A document without an id gets one. Raises `InputError` naming a document by position.
        """
        rows = prepared(documents)
        if not rows:
            return []
        ids = [id_ for id_, _, _ in rows]
        texts = [text for _, text, _ in rows]
        vectors = self._embed("documents", texts, show_progress)
        with self._lock:
            with self._store.transaction():
                self._store.delete(ids)
                self._store.insert(rows, vectors)
                self._image.fit_if_due()
            self._image.replay()
            self._save_image()
        return ids

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents and return how many there were; unknown ids are passed over."""
        listed = checked_texts(ids, "ids")
        with self._lock:
            with self._store.transaction():
                count = self._store.delete(listed)
            self._image.replay()
        return count

    def clear(self) -> int:
        """Remove every document and return how many there were."""
        with self._lock:
            with self._store.transaction():
                count = self._store.clear()
            self._image.replay()
        return count

    def rebuild(self) -> None:
        """Fit the maps anew on all documents and build the vectors from the store; nothing is embedded again."""
        with self._lock:
            with self._store.transaction():
                self._image.fit()
            self._image.load(from_rows=True)
            self._image.save(at_least=1)

    # -- reading

    def __len__(self) -> int:
        with self._lock:
            return len(self._store)

    def __iter__(self) -> Iterator[Document]:
        """Yield all documents in the order they were added."""
        with self._lock:
            return iter(list(self._store.documents()))

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Return documents in the order asked for; unknown ids are passed over."""
        listed = checked_texts(ids, "ids")
        with self._lock:
            found = self._store.documents_by_id(listed)
        return [found[id_] for id_ in listed if id_ in found]

    @overload
    def search(
        self, query: str, k: int = 10, *, mode: Mode = "hybrid", dense_weight: float = ..., fusion: Fusion = ...
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: list[str] | tuple[str, ...],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        dense_weight: float = ...,
        fusion: Fusion = ...,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        dense_weight: float = DENSE_WEIGHT,
        fusion: Fusion = "convex",
    ) -> list[Hit] | list[list[Hit]]:
        """Return the k best documents for a query, best first; a list of queries gives a list of lists.

        `dense` scores by cosine, `lexical` by BM25, `hybrid` fuses both over the union of their candidates with
        `dense_weight` (0 to 1), by `fusion` "convex" or "reciprocal-rank". Equal scores keep the order of adding.
        """
        k = check_search(k, mode, dense_weight, fusion)
        texts = checked_texts([query] if isinstance(query, str) else query, "query")
        vectors = None if mode == "lexical" or k == 0 else self._embed("queries", texts, False)
        results = []
        with self._lock, self._store.snapshot():
            self._image.refresh()
            unit = None if vectors is None else self._image.mapped(vectors)
            for i, text in enumerate(texts):
                if mode == "lexical" or unit is None:
                    results.append(self._lexical(text, k))
                elif mode == "dense":
                    results.append(self._dense(unit[i], k))
                else:
                    results.append(self._hybrid(text, unit[i], k, dense_weight, fusion))
        return results[0] if isinstance(query, str) else results

    def search_by_vector(self, vector: Float32Array, k: int = 10) -> list[Hit]:
        """Return the k documents nearest to a raw query vector `(dimension,)`, as the index's embedder gives it."""
        k = check_search(k, "dense", DENSE_WEIGHT, "convex")
        raw = checked_vectors(np.asarray(vector)[None], 1, self._dimension)
        with self._lock, self._store.snapshot():
            self._image.refresh()
            return self._dense(self._image.mapped(raw)[0], k)

    def info(self) -> IndexInfo:
        """Return what the index holds and what made it."""
        with self._lock:
            provenance = self._store.meta("provenance") or {}
            maps = self._store.maps()
            return IndexInfo(
                path=str(self._folder),
                documents=len(self._store),
                dimension=self._dimension,
                kind=self._store.meta("kind"),
                model=provenance.get("model"),
                source=provenance.get("source"),
                revision=provenance.get("revision"),
                fingerprint=self._store.meta("fingerprint"),
                recipe=provenance.get("recipe"),
                postprocess=tuple(view["postprocess"] for view in self._store.meta("views")),
                fitted=tuple(fitted.postprocess for fitted in maps),
                fitted_on=min((fitted.fitted_on for fitted in maps), default=0),
                libraries=self._store.meta("libraries"),
                bytes_on_disk=self._store.size() + self._image.size(),
            )

    # -- searching, under the lock

    def _dense(self, unit: Float32Array, k: int) -> list[Hit]:
        found = self._image.search(unit, k)
        return self._hits([(seq, score, {"dense": score}) for seq, score in found])

    def _lexical(self, text: str, k: int) -> list[Hit]:
        found = self._store.lexical(text, min(k, len(self._store)))
        return self._hits([(seq, score, {"lexical": score}) for seq, score in found.items()])

    def _hybrid(self, text: str, unit: Float32Array, k: int, dense_weight: float, how: Fusion) -> list[Hit]:
        count = min(max(_CANDIDATES, k), len(self._store))
        near = self._image.search(unit, count)
        words = self._store.lexical(text, count)
        words |= self._store.lexical(text, count, [seq for seq, _ in near if seq not in words])
        seqs = np.array(sorted({seq for seq, _ in near} | set(words)), dtype=np.int64)
        if not len(seqs):
            return []
        dense = self._image.scores(unit, seqs)
        lexical = np.array([words.get(int(seq), 0.0) for seq in seqs], dtype=np.float64)
        fuse = fusions.convex if how == "convex" else fusions.reciprocal_rank
        scores = fuse(dense, lexical, dense_weight)
        order = np.argsort(-scores.round(7), kind="stable")[:k]
        parts = [{"dense": float(dense[i]), "lexical": float(lexical[i])} for i in order]
        return self._hits([(int(seqs[i]), float(scores[i]), part) for i, part in zip(order, parts, strict=True)])

    def _hits(self, found: Sequence[tuple[int, float, dict[str, float]]]) -> list[Hit]:
        documents = self._store.documents_by_seq([seq for seq, _, _ in found])
        missing = [seq for seq, _, _ in found if seq not in documents]
        if missing:
            raise CorruptIndexError(f"{self._store.file}: record {missing[0]} has a vector or words but no document")
        return [Hit(documents[seq], score, rank, parts) for rank, (seq, score, parts) in enumerate(found, 1)]

    def _save_image(self, **options: int) -> None:
        """Write a snapshot if one is due; without it the next opening replays more rows, and nothing is lost."""
        try:
            self._image.save(**options)
        except (IndexAccessError, IndexLockedError) as error:
            logger.warning("no snapshot of the vectors was written: %s", error)

    # -- embedding

    def _embed(self, what: Literal["queries", "documents"], texts: list[str], show_progress: bool) -> Float32Array:
        embedder = self.embedder
        method = embedder.embed_queries if what == "queries" else embedder.embed_documents
        if show_progress and isinstance(embedder, HasProvenance):
            raw = cast("Any", method)(texts, show_progress=True)
        else:
            raw = method(texts)
        return checked_vectors(raw, len(texts), self._dimension)

    @property
    def embedder(self) -> TextEmbedder:
        """The embedder that made the index, loaded now if it was not given."""
        with self._lock:
            if self._embedder is None:
                stored = self._store.meta("provenance")
                if stored is None:
                    raise InputError(f"{self._folder}: made by an embedder of your own; give it to Index.open")
                from tp_retrieval.embedding.embedder import Embedder
                from tp_retrieval.embedding.recipe import Recipe

                embedder = Embedder.from_pretrained(
                    stored["source"],
                    recipe=Recipe.from_dict(stored["recipe"]),
                    revision=stored["revision"],
                    dtype=stored["dtype"],
                )
                self._check(embedder)
                self._embedder = embedder
            return self._embedder

    def _check(self, embedder: TextEmbedder) -> None:
        check_embedder(
            embedder,
            path=self._folder,
            dimension=self._dimension,
            fingerprint=self._store.meta("fingerprint"),
            provenance=self._store.meta("provenance"),
        )
