"""The index: documents, vectors and full text in one folder, searched by vectors, by words or by both."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from heapq import nsmallest
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TypedDict, Unpack, overload

import numpy as np

from tp_retrieval.embedding.maps.affine import rows_needed
from tp_retrieval.embedding.maps.within import is_sample, needed_views, priority_of, sample_size, sampled_views, whole_first
from tp_retrieval.errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    IndexAccessError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
    TPRetrievalError,
)
from tp_retrieval.indexing.compatibility import (
    ModelLoading,
    check_embedder,
    load_embedder,
    same_embedder,
    same_embedder_or_raw,
    scaled_like,
    upgrade_fingerprint,
    with_stored_lengths,
)
from tp_retrieval.indexing.document_embedding import embed_documents
from tp_retrieval.indexing.info import IndexInfo, describe
from tp_retrieval.indexing.search.duplicates import Duplicate
from tp_retrieval.indexing.search.duplicates import find as find_duplicates
from tp_retrieval.indexing.search.engine import SearchEngine
from tp_retrieval.indexing.search.neighbours import Expand, around
from tp_retrieval.indexing.search.query import (
    CANDIDATES,
    DENSE_WEIGHT,
    Fusion,
    Mode,
    Search,
    SearchOptions,
    Selection,
    Where,
)
from tp_retrieval.indexing.storage.documents import PreparedDocument
from tp_retrieval.indexing.storage.fulltext import TOKENIZERS, Tokenizer
from tp_retrieval.indexing.storage.meta import FileSettings, IndexMeta, VectorSettings
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.raw_vectors import PRECISIONS, RawPrecision
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.validation import check_page, prepared
from tp_retrieval.indexing.vectors.builder import Builder
from tp_retrieval.indexing.vectors.fitting import UnusableMapsError, fit, fit_if_due, unread_rows, with_maps
from tp_retrieval.indexing.vectors.kinds import check_kind
from tp_retrieval.indexing.vectors.synced_vectors import MappedRows, SyncedVectors
from tp_retrieval.indexing.verify import Verification, verify
from tp_retrieval.types import (
    Document,
    EmbedsStretches,
    Float32Array,
    HasProvenance,
    Hit,
    HitReranker,
    Provenance,
    Role,
    Stretches,
    TextEmbedder,
    VectorView,
    check_text,
    checked_texts,
    checked_vectors,
)

logger = logging.getLogger(__name__)


class IndexOptions(TypedDict, total=False):
    """What `Index.create` takes by name."""

    kind: str
    target_recall: float
    tokenizer: Tokenizer
    raw: RawPrecision


class Index:
    """A searchable collection of documents on disk; create it with `create`, open it with `open`, use it in a `with`.

    Many threads may share one index, and many processes may open it; `add` and `delete` are durable when they return, and
    atomic.
    """

    def __init__(self, folder: Path, store: Store, embedder: TextEmbedder | None) -> None:
        self._folder = folder
        self._store = store
        self._lock = store.lock
        self._embedder = embedder
        self._loading: ModelLoading = {}
        meta = store.meta.read()
        self._dimension = meta.dimension
        self._provenance = meta.provenance
        self._upcoming: frozenset[int] = frozenset()  # priorities of texts that will be added
        self._vectors = SyncedVectors(folder, store)
        self._builder = Builder(self._lock, store, self._vectors)
        weight = DENSE_WEIGHT if meta.dense_weight is None else meta.dense_weight
        self._engine = SearchEngine(store, self._vectors, weight)

    @classmethod
    def create(
        cls,
        path: str | Path,
        embedder: TextEmbedder,
        *,
        kind: str = "auto",
        target_recall: float = 0.95,
        tokenizer: Tokenizer = "words",
        raw: RawPrecision = "float32",
    ) -> Index:
        """Create an empty index in a folder that holds none.

        `kind` is the search method for vectors: "flat" is exact; "scan" compares 4-bit codes of all rows and scores the
        best exactly; "hnsw", "ivf", "ivf-sq8", "ivf-pq" or a string of FAISS's index factory looks at a part of them. All
        but "flat" are built beside searches and adds from 10,000 documents on, tuned to find `target_recall` of the ten
        nearest, "scan" at least 0.99 of them; "auto" is "scan", and "ivf" where that takes more than 10 ms on this machine.
        `tokenizer` "trigram" suits languages without spaces between words. `raw` "float16" stores the raw vectors in half
        the bytes. Raises `IndexExistsError`, `IndexAccessError` or `InputError`.
        """
        check_kind(kind, embedder.dimension)
        _check_precision(raw)
        _check_recall(target_recall)
        if tokenizer not in TOKENIZERS:
            raise InputError(f"tokenizer: {tokenizer!r} must be one of {', '.join(TOKENIZERS)}")
        folder = _absolute(path)
        provenance = embedder.provenance if isinstance(embedder, HasProvenance) else None
        views = (VectorView(embedder.dimension),) if provenance is None else provenance.views
        samples = [view.sample for view in views]
        if not whole_first(samples) or not all(sample is None or is_sample(sample) for sample in samples):
            raise InputError(f"views.sample: {samples} must be null for the first views, then numbers of documents")
        meta = IndexMeta(
            dimension=embedder.dimension,
            fingerprint=embedder.fingerprint,
            views=views,
            vectors=VectorSettings(kind, target_recall),
            provenance=provenance,
            tokenizer=tokenizer,
            raw=raw,
            libraries={name: version(name) for name in ("tp-retrieval", "faiss-cpu", "numpy")},
        )
        store = Store.create(folder, meta)
        with store.lock:
            self = cls(folder, store, embedder)
            self._vectors.load()
        return self

    @classmethod
    def open(cls, path: str | Path, embedder: TextEmbedder | None = None, **loading: Unpack[ModelLoading]) -> Index:
        """Open an index; without an embedder, the model named in it is loaded when a text must be embedded.

        One of the right model may give views of unit length or not, whatever made the index.
        It is loaded as it was when the index was made, but for what `loading` says: `device`, `dtype`, `model_kwargs`.
        Raises `IndexNotFoundError`, `CorruptIndexError`, and `IncompatibleIndexError` if the embedder is not the one that
        made the index.
        """
        unknown = sorted(loading.keys() - ModelLoading.__annotations__)
        if unknown:
            raise InputError(f"{unknown[0]}: unknown option; there are {', '.join(ModelLoading.__annotations__)}")
        if embedder is not None and any(loading.values()):
            raise InputError(f"{next(iter(loading))}: the embedder that is given is loaded already")
        folder = _absolute(path)
        store = Store(folder)
        with store.lock:
            try:
                return cls._opened(folder, store, embedder, loading)
            except BaseException:
                store.close()
                raise

    @classmethod
    def _opened(cls, folder: Path, store: Store, embedder: TextEmbedder | None, loading: ModelLoading) -> Index:
        with ThreadPoolExecutor(1) as executor:
            intact = executor.submit(store.database.checksum.intact)
            try:
                self = cls(folder, store, None)
                self._loading = loading
                if embedder is not None:
                    embedder = scaled_like(embedder, store.meta.read())
                    self._check(embedder)
                    self._embedder = embedder
                usable = self._load()
            except (TypeError, ValueError) as error:
                if isinstance(error, TPRetrievalError) or intact.result():
                    raise
                raise _damaged(store) from error
        if not intact.result():
            raise _damaged(store)
        if embedder is not None:
            upgrade_fingerprint(store, embedder)  # after its bytes were checked: a change removes the checksum
        if not usable:
            self._fit_anew()
        return self

    @classmethod
    def open_or_create(
        cls, path: str | Path, embedder: TextEmbedder | None = None, **options: Unpack[IndexOptions]
    ) -> Index:
        """Open the index at a path, or create it there; `options` are those of `create`.

        Raises what `open` and `create` raise, and `IndexNotFoundError` without an embedder where there is no index.
        """
        try:
            return cls.open(path, embedder)
        except IndexNotFoundError:
            if embedder is None:
                raise
        try:
            return cls.create(path, embedder, **options)
        except IndexExistsError:  # another process was faster
            return cls.open(path, embedder)

    def close(self) -> None:
        """Wait for vectors that are being built, write a snapshot of changed ones, and close the files."""
        try:
            self._builder.wait()
        finally:
            self._close()

    def _close(self) -> None:
        with self._lock:
            if self._store.database.closed:
                self._store.close()
                return
            try:
                self._keep_snapshot(at_least=1)
            finally:
                self._store.close(checksum=True)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- changes

    def add(
        self,
        documents: Sequence[Document | str],
        *,
        vectors: Float32Array | None = None,
        namespace: str = "",
        show_progress: bool = False,
    ) -> list[str]:
        """Embed and add documents, replacing those with the same id, and return their ids; on any error none is added.

        A document without an id gets one. `vectors` `(n, dimension)` are raw vectors that the embedder computed before; an
        index of unit vectors scales them. A `namespace` keeps documents apart: ids are unique in it, and only calls that
        name it see them. Raises `InputError` naming a document by position.
        """
        rows = prepared(documents, namespace)
        if vectors is not None:
            vectors = with_stored_lengths(checked_vectors(vectors, len(rows), self._dimension), self._provenance)
        if not rows:
            return []
        ids = [row.id for row in rows]
        stretches = None
        if vectors is None:
            vectors, stretches = self._embed_documents(rows, show_progress)
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                self._store.delete(self._store.documents.seqs_of(ids, namespace))
                added = self._insert(rows, vectors, stretches)
            self._follow(added)
            self._keep_snapshot(build=True)
        return ids

    def _insert(
        self, rows: Sequence[PreparedDocument], vectors: Float32Array, stretches: Sequence[Stretches] | None
    ) -> MappedRows | None:
        """Store rows and fit maps if that is due, inside a transaction; return what the vectors follow the change by."""
        seqs = self._store.insert(rows, vectors, stretches)
        fit_if_due(self._store)
        return self._vectors.prepare(seqs, self._store.as_stored(vectors))

    def merge_from(self, other: Index) -> int:
        """Add all documents of another index with ids, namespaces and raw vectors, and return how many, or add none.

        Raises `InputError` naming an id that both have, and `IncompatibleIndexError` if another embedder made the other
        index.
        """
        meta, made_by = self._meta(), other._meta().fingerprint
        if not same_embedder(meta.fingerprint, made_by, lambda: self.embedder):
            raise IncompatibleIndexError(
                f"{self._folder} and {other._folder} hold vectors of different embedders (fingerprints {meta.fingerprint} "
                f"and {made_by}); add the texts instead"
            )
        rows, vectors, stretches = other._contents()
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                self._refuse_present(rows)
                added = self._insert(rows, vectors, stretches) if rows else None
            self._follow(added)
            self._keep_snapshot(build=True)
        return len(rows)

    def _refuse_present(self, rows: Sequence[PreparedDocument]) -> None:
        """Raise `InputError` naming a document that the index has."""
        for namespace in {row.namespace for row in rows}:
            ids = [row.id for row in rows if row.namespace == namespace]
            present = self._store.documents.rows(self._store.documents.seqs_of(ids, namespace))
            if present:
                raise InputError(f"other: the id {present[0].id!r} is in both indexes; delete it from one of them")

    def _contents(self) -> tuple[list[PreparedDocument], Float32Array, list[Stretches]]:
        """Return all documents, with raw vectors `(n, dimension)` and the stretches that maps are fitted on."""
        rows: list[PreparedDocument] = []
        seqs = np.zeros(0, dtype=np.int64)
        with self._lock, self._store.snapshot():
            for namespace in self._store.documents.namespaces():
                within = self._rows_in(namespace)
                by_seq = self._store.documents.by_seq(within.tolist())
                rows += prepared([by_seq[seq] for seq in within.tolist()], namespace)
                seqs = np.append(seqs, within)
            vectors = self._store.documents.vectors_of(seqs)
            of_rows = self._store.stretches.by_row(self._store.meta.read().views)
        return rows, vectors, [of_rows.get(seq, {}) for seq in seqs.tolist()]

    def _rows_in(self, namespace: str) -> Seqs:
        within = self._store.documents.seqs_in(namespace)
        return self._store.documents.seqs() if within is None else within

    @contextmanager
    def adding(self, texts: Sequence[str]) -> Iterator[None]:
        """Within it, calls of `add` that add these texts in parts read no more of them than one call would.

        Of a view that is read of a sample, and for maps, `add` reads the documents that belong to the sample by then. In
        parts these are more than a single call's, unless the texts to come are known.
        """
        views = self.views
        most = max((sample_size(views[view]) for view in needed_views(views)), default=0)
        before = self._upcoming
        self._upcoming = before | {*nsmallest(most, {priority_of(text) for text in texts})}  # no other can be in a sample
        try:
            yield
        finally:
            self._upcoming = before

    def add_vectors(
        self, documents: Sequence[Document | str], vectors: Float32Array, *, fingerprint: str, namespace: str = ""
    ) -> list[str]:
        """Add documents with raw vectors `(n, dimension)` from elsewhere, and return their ids.

        `fingerprint` is that of the embedder that computed them. Raises `IncompatibleIndexError` if it is not the index's.
        """
        meta = self._meta()
        if not same_embedder_or_raw(meta.fingerprint, fingerprint, meta.provenance, lambda: self.embedder):
            raise IncompatibleIndexError(
                f"{self._folder} holds vectors of another embedder (fingerprint: stored {meta.fingerprint}, given "
                f"{fingerprint})"
            )
        return self.add(documents, vectors=vectors, namespace=namespace)

    def update(self, documents: Mapping[str, Document], *, namespace: str = "") -> list[str]:
        """Give documents, by their present ids, other metadata or ids, and return these; nothing is embedded again.

        A document without an id keeps its own. On any error none is changed. Raises `InputError` for an id that is not
        there, a text that differs from the stored one, and a new id that another document has.
        """
        ids = [*documents]
        rows = prepared([replace(document, id=document.id or id_) for id_, document in documents.items()], namespace)
        if not rows:
            return []
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                seqs, vectors = self._store.replace(ids, rows, namespace)
                added = self._vectors.prepare(seqs, vectors)
            self._follow(added)
            self._keep_snapshot(build=True)
        return [row.id for row in rows]

    def file_settings(self, namespace: str = "") -> FileSettings | None:
        """Return how files were read into a namespace, None if none were."""
        return self._meta().files.get(namespace)

    def set_file_settings(self, settings: FileSettings, *, namespace: str = "") -> None:
        """Keep how files were read into a namespace, for the next time they are."""
        check_text(namespace, "namespace")
        with self._lock, self._store.transaction():
            meta = self._store.meta.read()
            self._store.meta.write(replace(meta, files={**meta.files, namespace: settings}))

    def delete(self, ids: Sequence[str] | None = None, *, where: Where | None = None, namespace: str = "") -> int:
        """Remove documents by id, or those that fit `where`, or both at once, and return how many were removed.

        Unknown ids are ignored. Raises `InputError` if neither is given; `clear` removes everything.
        """
        if ids is None and not where:
            raise InputError("ids: give ids or where; clear() removes every document")
        selection = Selection(where, ids, namespace)
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                seqs = self._store.select(selection.condition, selection.ids, selection.namespace)
                count = 0 if seqs is None else self._store.delete(seqs)
            self._follow()
        return count

    def clear(self, *, namespace: str | None = None) -> int:
        """Remove every document, or every one of a namespace, and how files were read; return how many there were."""
        if namespace is not None:
            check_text(namespace, "namespace")
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                files = self._store.meta.read().files
                kept = {name: settings for name, settings in files.items() if namespace not in (None, name)}
                within = None if namespace is None else self._store.documents.seqs_in(namespace)
                count = self._store.clear() if within is None else self._store.delete(within)
                self._store.meta.write(replace(self._store.meta.read(), files=kept))
            self._follow()
        return count

    def rebuild(
        self,
        *,
        kind: str | None = None,
        target_recall: float | None = None,
        postprocess: str | Sequence[str] | None = None,
        raw: RawPrecision | None = None,
        show_progress: bool = False,
    ) -> None:
        """Fit the maps anew on all documents and rebuild the vectors from the store.

        `kind`, `target_recall` and `raw` are those of `create`; `postprocess` changes the maps, one for all views or one
        each. No document is embedded again, but for a sample of which half is missing: for a map `within:K`, and of views
        that are read of a sample alone. Raises `InputError` if a map needs more documents than there are, or stretches that
        the embedder does not give.
        """
        if kind is not None:
            check_kind(kind, self._dimension)
        if target_recall is not None:
            _check_recall(target_recall)
        if raw is not None:
            _check_precision(raw)
        self._read_missing(postprocess, show_progress)
        with self._lock:
            with self._store.transaction():
                self._vectors.fall_behind()
                meta = self._store.meta.read()
                settings = VectorSettings(kind or meta.vectors.kind, target_recall or meta.vectors.target_recall)
                views = meta.views if postprocess is None else self._views_with(postprocess, meta.views)
                self._store.meta.write(replace(meta, vectors=settings, views=views, raw=raw or meta.raw))
                converted = 0 if raw is None else self._store.documents.convert()
                fit(self._store)
            if converted:
                with suppress(IndexLockedError, IndexAccessError):  # the space is used again later
                    self._store.database.vacuum()
            self._vectors.show_progress = show_progress
            try:
                with self._store.snapshot():
                    self._vectors.load(from_rows=True)
                self._vectors.build_if_due()
            finally:
                self._vectors.show_progress = False
            self._vectors.save(at_least=1)

    def _views_with(self, postprocess: str | Sequence[str], stored: Sequence[VectorView]) -> tuple[VectorView, ...]:
        views = with_maps(stored, postprocess)
        counts = self._store.stretches.counts()
        for i, view in enumerate(views):
            needed = rows_needed(view.postprocess, view.width)
            count = len(self._store.documents) if view.sample is None else self._store.documents.count_wholly_read()
            if count < needed:
                read = "" if view.sample is None else " that are read for the view"
                raise InputError(f"postprocess: {view.postprocess!r} needs {needed} documents{read}, there are {count}")
            if view.postprocess.startswith("within") and counts.get(i, 0) < needed:
                raise InputError(
                    f"postprocess: {view.postprocess!r} needs {needed} documents of several stretches, {counts.get(i, 0)} "
                    "have some; texts of a few words have none, and some embedders give none"
                )
        return tuple(views)

    def _read_missing(self, postprocess: str | Sequence[str] | None, show_progress: bool) -> None:
        """Let the model read what the sample lacks, stretches or whole vectors, and store it."""
        with self._lock, self._store.snapshot():
            stored = self._store.meta.read().views
            views = stored if postprocess is None else with_maps(stored, postprocess)
            unread = unread_rows(self._store, views)
            texts = {seq: document.text for seq, document in self._store.documents.by_seq(unread).items()}
        if not texts or not isinstance(self.embedder, EmbedsStretches):
            return
        wanted = [unread[seq] for seq in texts]
        vectors, stretches = embed_documents(
            self.embedder, list(texts.values()), wanted, views, show_progress=show_progress
        )
        read = {seq: (vectors[i], of_text) for i, (seq, of_text) in enumerate(zip(texts, stretches or [], strict=True))}
        with self._lock:
            self._store_read(texts, read, unread, views)

    def _store_read(
        self,
        texts: Mapping[int, str],
        read: Mapping[int, tuple[Float32Array, Stretches]],
        unread: Mapping[int, frozenset[int]],
        views: Sequence[VectorView],
    ) -> None:
        """Store vectors and stretches that were read later, of the rows that are still there."""
        with self._store.transaction():
            self._vectors.fall_behind()
            seqs = sorted(self._store.documents.by_seq(texts))  # others were deleted meanwhile
            self._store.stretches.insert(
                np.array(seqs, dtype=np.int64), [texts[seq] for seq in seqs], [read[seq][1] for seq in seqs], views
            )
            newly = [seq for seq in seqs if not sampled_views(views).isdisjoint(unread[seq])]
            for seq in newly:
                self._store.documents.replace_vector(seq, read[seq][0])
            if newly:
                self._store.next_generation()  # the vectors in memory, and in snapshots, are those of the rows before

    def wait_until_built(self) -> None:
        """Wait for vectors that are being built beside searches and adds, which `add` begins when it is due."""
        self._builder.wait()

    def verify(self, *, repair: bool = False) -> Verification:
        """Check every record, the full text, the metadata index and the vectors; `repair` rebuilds what is derived.

        A damaged document can't be rebuilt: `repair` removes it, and the problem names its id.
        """
        with self._lock:
            self._store.database.check_place()
            verification = verify(self._folder, repair=repair)
            with self._store.snapshot():
                self._vectors.refresh()
        return verification

    # -- reading

    def __len__(self) -> int:
        """Return the number of documents in all namespaces; `namespaces` has that of each."""
        with self._lock, self._store.snapshot():
            return len(self._store.documents)

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents of all namespaces in the order of adding."""
        with self._lock, self._store.snapshot():
            return iter(list(self._store.documents))

    def namespaces(self) -> dict[str, int]:
        """Return the number of documents in each namespace by its name, which is "" for documents added without one."""
        with self._lock, self._store.snapshot():
            return self._store.documents.namespaces()

    def batches(
        self, size: int = 512, *, after: str | None = None, namespace: str = ""
    ) -> Iterator[tuple[list[Document], Float32Array]]:
        """Yield the documents of a namespace in the order of adding, or those after the id `after`, with their vectors.

        The vectors are mapped, weighted and of unit length, `(n, width) float32`. Raises `IncompatibleIndexError` if other
        maps are fitted meanwhile, under which later vectors would not fit the earlier ones.
        """
        check_text(namespace, "namespace")
        with self._lock, self._store.snapshot():
            self._vectors.refresh()
            maps = self._vectors.maps_digest()
            seqs = self._rows_in(namespace)
            if after is not None:
                last = self._store.documents.seqs_of([after], namespace)
                seqs = seqs[seqs > last[0]] if len(last) else seqs
        for begin in range(0, len(seqs), size):
            with self._lock, self._store.snapshot():
                self._vectors.refresh()
                if self._vectors.maps_digest() != maps:
                    raise IncompatibleIndexError(f"{self._folder}: other maps were fitted meanwhile; begin again")
                by_seq = self._store.documents.by_seq(seqs[begin : begin + size].tolist())
                stored = sorted(by_seq)  # others were deleted meanwhile
                raw = self._store.documents.vectors_of(np.array(stored, dtype=np.int64))
                vectors = self._vectors.mapped(raw) if stored else raw
            if stored:
                yield [by_seq[seq] for seq in stored], vectors

    def map_vectors(self, raw: Float32Array, *, role: Role = "document") -> Float32Array:
        """Return raw vectors `(n, dimension)` as the index compares them: mapped, `(n, width) float32` of unit length.

        `role` says whether they are of documents or of queries, for which a map may differ.
        """
        checked = checked_vectors(raw, len(raw), self._dimension)
        with self._lock, self._store.snapshot():
            self._vectors.refresh()
            return self._vectors.mapped(checked, role)

    def get(
        self,
        ids: Sequence[str] | None = None,
        *,
        where: Where | None = None,
        namespace: str = "",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Document]:
        """Return documents in the order of `ids`, without ids in the order of adding; `where` keeps those that fit.

        Unknown ids are ignored. Of the documents left, `offset` are skipped and at most `limit` returned.
        """
        check_page(limit, offset)
        page = slice(offset, None if limit is None else offset + limit)
        selection = Selection(where, ids, namespace)
        with self._lock, self._store.snapshot():
            selected = self._store.select(selection.condition, selection.ids, selection.namespace)
            seqs = (self._store.documents.seqs() if selected is None else selected).tolist()
            if selection.ids is None:
                seqs = seqs[page]
            by_seq = self._store.documents.by_seq(seqs)
        if selection.ids is None:
            return [by_seq[seq] for seq in seqs]
        by_id = {document.id: document for document in by_seq.values()}
        return [by_id[id_] for id_ in selection.ids if id_ in by_id][page]

    def metadata_keys(self) -> list[str]:
        """Return the keys of the documents' metadata, those in objects as dotted paths, sorted."""
        with self._lock, self._store.snapshot():
            return self._store.metadata_index.paths()

    @overload
    def search(self, query: str, k: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]: ...

    @overload
    def search(
        self, query: list[str] | tuple[str, ...], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        namespace: str = "",
        mode: Mode = "hybrid",
        mmr: float | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        dense_weight: float | None = None,
        fusion: Fusion = "convex",
        candidates: int = CANDIDATES,
        rerank: HitReranker | None = None,
        expand: Expand | None = None,
        group_by: str | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the k best documents for a query, best first; a list of queries gives a list of lists.

        `where` keeps documents whose metadata fit, such as `{"year": {"$gte": 2020}}`; there are k hits whenever k fit;
        `ids` keeps those named, and `namespace` those added to it.
        `mode` "dense" scores by cosine, "lexical" by BM25, "hybrid" fuses both over the union of their candidates with
        `dense_weight` (0 to 1; by default the recipe's, or 0.4), by `fusion` "convex" or "reciprocal-rank". `mmr` chooses
        hits that are unlike each other, from 1 (only relevance) to 0 (only variety). `candidates` is how many rows each
        side brings to a hybrid search, and `mmr` chooses from, if k is not more. `min_score` leaves out hits that score
        lower, `min_relevance` (0 to 1) those that are less likely relevant by `Hit.relevance`. Equal scores keep the order
        of adding. `rerank`, a `Reranker`, orders anew as many as its depth says, or k, before k are taken. `expand` gives
        each hit of a file what stands around it, as `context`: so many chunks before and after, or with "section" all under
        the same headings. `group_by` keeps the best hit of each value of a metadata key, such as "path"; a document without
        the key is a group of its own.
        """
        search = Search(
            selection=Selection(where, ids, namespace),
            k=k,
            mode=mode,
            mmr=mmr,
            min_score=min_score,
            min_relevance=min_relevance,
            dense_weight=dense_weight,
            fusion=fusion,
            candidates=candidates,
            rerank=rerank,
            expand=expand,
            group_by=group_by,
        )
        texts = checked_texts([query] if isinstance(query, str) else query, "query")
        results = self._hits(search, texts, None if search.needs_no_vector else self._embed_queries(texts))
        if rerank is not None:
            results = rerank.rerank(texts, results, k)
        results = self._expanded(results, search)
        return results[0] if isinstance(query, str) else results

    def search_by_vector(
        self,
        vector: Float32Array,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        namespace: str = "",
        text: str | None = None,
        mmr: float | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        dense_weight: float | None = None,
        fusion: Fusion = "convex",
        candidates: int = CANDIDATES,
        expand: Expand | None = None,
        group_by: str | None = None,
    ) -> list[Hit]:
        """Return the k documents nearest to a raw query vector `(dimension,)`, as the index's embedder gives it.

        With the query's `text` the search is hybrid. The other arguments are those of `search`.
        """
        return self.search_by_vectors(
            np.asarray(vector)[None],
            k,
            texts=None if text is None else [text],
            where=where,
            ids=ids,
            namespace=namespace,
            mmr=mmr,
            min_score=min_score,
            min_relevance=min_relevance,
            dense_weight=dense_weight,
            fusion=fusion,
            candidates=candidates,
            expand=expand,
            group_by=group_by,
        )[0]

    def search_by_vectors(
        self,
        vectors: Float32Array,
        k: int = 10,
        *,
        texts: Sequence[str] | None = None,
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        namespace: str = "",
        mmr: float | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        dense_weight: float | None = None,
        fusion: Fusion = "convex",
        candidates: int = CANDIDATES,
        expand: Expand | None = None,
        group_by: str | None = None,
    ) -> list[list[Hit]]:
        """Return what `search_by_vector` does for each of some raw query vectors `(n, dimension)`, compared together."""
        mode: Mode = "dense" if texts is None else "hybrid"
        search = Search(
            selection=Selection(where, ids, namespace),
            k=k,
            mode=mode,
            mmr=mmr,
            min_score=min_score,
            min_relevance=min_relevance,
            dense_weight=dense_weight,
            fusion=fusion,
            candidates=candidates,
            expand=expand,
            group_by=group_by,
        )
        raw = np.asarray(vectors)
        raw = with_stored_lengths(checked_vectors(raw, len(raw) if raw.ndim else 1, self._dimension), self._provenance)
        texts = [""] * len(raw) if texts is None else checked_texts(texts, "texts")
        if len(texts) != len(raw):
            raise InputError(f"texts: {len(texts)} texts for {len(raw)} vectors")
        return self._expanded(self._hits(search, texts, raw), search)

    def _hits(self, search: Search, texts: Sequence[str], raw: Float32Array | None) -> list[list[Hit]]:
        """Return the hits of each query: its text and, unless the search is lexical, its raw vector `(dimension,)`."""
        with self._lock, self._store.snapshot():
            self._vectors.refresh()
            among = self._engine.selected(search.selection)
            units = None if raw is None else self._vectors.mapped_queries(raw)
            return self._engine.hits(search, texts, units, among)

    def _expanded(self, results: list[list[Hit]], search: Search) -> list[list[Hit]]:
        """Return hits with what stands around them in their files."""
        expand, namespace = search.expand, search.selection.namespace
        if expand is None:
            return results
        with self._lock, self._store.snapshot():
            return [
                [replace(hit, context=around(self._store, hit.document, expand, namespace)) for hit in hits]
                for hits in results
            ]

    def duplicates(self, threshold: float = 0.95, *, namespace: str = "", show_progress: bool = False) -> list[Duplicate]:
        """Return the documents of a namespace whose cosine with an earlier one is at least `threshold`, most alike first.

        Each is named once, with the earlier document that it is nearest to; deleting the `id` of each leaves one of every
        group. All are compared with all; searches and changes go on meanwhile. Raises `InputError` for a threshold that is
        no cosine, and what `batches` raises.
        """
        if not isinstance(threshold, (int, float)) or not -1 <= threshold <= 1:
            raise InputError(f"threshold: {threshold!r} must be a cosine, -1 to 1")
        return find_duplicates(self.batches(namespace=namespace), threshold, show_progress=show_progress)

    def info(self) -> IndexInfo:
        """Return what the index holds, what made it, and how its vectors are searched."""
        with self._lock, self._store.snapshot():
            self._vectors.refresh()
            return describe(self._folder, self._store, self._vectors)

    # -- the in-memory vectors, under the lock

    def _load(self) -> bool:
        """Load the vectors; return whether the fitted maps are usable."""
        try:
            with self._store.snapshot():
                self._vectors.load()
            if self._store.database.writable:
                self._builder.start_if_due()  # what a kill prevented, or an earlier version did not build
        except UnusableMapsError as error:
            logger.warning("%s", error)
            return False
        return True

    def _fit_anew(self) -> None:
        """Replace unusable maps, which version 0.1.0 stored for rows that are all equal."""
        with self._store.transaction():
            fit(self._store)
        with self._store.snapshot():
            self._vectors.load()

    def _follow(self, added: MappedRows | None = None) -> None:
        """Bring the vectors up to date; the change is durable by now, so the next search raises what fails here."""
        try:
            with self._store.snapshot():
                self._vectors.refresh(added)
        except (IndexAccessError, IndexLockedError, CorruptIndexError) as error:
            logger.warning("the vectors could not follow a change yet: %s", error)
            self._vectors.discard()

    def _keep_snapshot(self, *, build: bool = False, **options: int) -> None:
        """Build and write the vectors if that is due; a failure makes searching or opening slower and loses nothing."""
        try:
            if build:
                self._builder.start_if_due()
            self._vectors.save(**options)
        except (IndexAccessError, IndexLockedError) as error:
            logger.warning("no snapshot of the vectors was written: %s", error)

    def _meta(self) -> IndexMeta:
        with self._lock, self._store.snapshot():
            return self._store.meta.read()

    # -- embedding

    def _embed_queries(self, texts: list[str]) -> Float32Array:
        return checked_vectors(self.embedder.embed_queries(texts), len(texts), self._dimension)

    def _embed_documents(
        self, rows: Sequence[PreparedDocument], show_progress: bool
    ) -> tuple[Float32Array, list[Stretches] | None]:
        """Return raw vectors of documents of one namespace, and stretches of those in the sample where a map needs them."""
        embedder, texts, wanted = self.embedder, [row.text for row in rows], None
        with self._lock, self._store.snapshot():
            views = self._store.meta.read().views
            if needed_views(views) and isinstance(embedder, EmbedsStretches):
                ids, namespace = [row.id for row in rows], rows[0].namespace
                replaced = set(self._store.documents.seqs_of(ids, namespace).tolist())
                wanted = self._store.stretches.wanted(texts, views, replaced, self._upcoming)
        return embed_documents(embedder, texts, wanted, views, show_progress=show_progress)

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._folder

    @property
    def provenance(self) -> Provenance | None:
        """The model and recipe that made the index, None for an embedder of one's own or vectors from elsewhere."""
        return self._provenance

    @property
    def views(self) -> tuple[VectorView, ...]:
        """The parts of a raw vector, each with the map that the index fits to it."""
        return self._meta().views

    @property
    def embedder(self) -> TextEmbedder:
        """The embedder that the index was made with, loaded now if `open` got none."""
        with self._lock:
            if self._embedder is None:
                stored = self._store.meta.read().provenance
                if stored is None:
                    raise InputError(
                        f"{self._folder}: made by an embedder of your own; give it to Index.open, or search with the mode "
                        "lexical"
                    )
                embedder = load_embedder(stored, **self._loading)
                self._check(embedder)
                upgrade_fingerprint(self._store, embedder)
                self._embedder = embedder
            return self._embedder

    def _check(self, embedder: TextEmbedder) -> None:
        check_embedder(embedder, self._folder, self._store.meta.read())


def _damaged(store: Store) -> CorruptIndexError:
    return CorruptIndexError(
        f"{store.file} is damaged: its bytes are not those it was closed with; "
        f"`tp-retrieval verify {store.file.parent}` says where, and with --repair rebuilds what is derived"
    )


def _absolute(path: str | Path) -> Path:
    """Return a path that stays what it is when the process changes its folder."""
    try:
        return Path(path).absolute()
    except OSError as error:
        raise IndexAccessError(f"can't tell where {path} lies: the present folder is gone ({error})") from error


def _check_precision(raw: str) -> None:
    if raw not in PRECISIONS:
        raise InputError(f"raw: {raw!r} must be one of {', '.join(PRECISIONS)}")


def _check_recall(target: float) -> None:
    if not isinstance(target, (int, float)) or not 0 < target <= 1:
        raise InputError(f"target_recall: {target!r} must be above 0 and at most 1")
