"""An `Index` as LangChain `VectorStore`."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypedDict, Unpack, cast

import numpy as np
from langchain_core.documents import Document as LCDocument
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from tp_retrieval import Document, Hit, Index, IndexNotFoundError, InputError
from tp_retrieval.indexing.importers.files import refit_if_grown
from tp_retrieval.indexing.importers.langchain_faiss import read_store
from tp_retrieval.indexing.index import IndexOptions
from tp_retrieval.indexing.search.query import SearchOptions, VectorSearchOptions
from tp_retrieval.integrations.langchain.embeddings import TPEmbeddings
from tp_retrieval.integrations.loading import adapter_of_index, is_scaled_otherwise, needs_lengths, read_missing
from tp_retrieval.integrations.worker import Worker, asynchronous
from tp_retrieval.types import Float32Array, TextEmbedder, checked_vectors

Filter = dict[str, object] | Callable[[LCDocument], bool] | None


class Restriction(TypedDict, total=False):
    """The documents among which a search chooses, as `Index.search` and `Index.search_by_vector` take them."""

    where: dict[str, object] | None
    ids: list[str]
    namespace: str


class StoredDocuments(TypedDict):
    """Documents of a store, as Chroma's `get` returns them: of each its id, text and metadata, in three lists."""

    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, object]]


class LangChainEmbedder:
    """Any LangChain `Embeddings` as a `TextEmbedder`.

    The fingerprint is made of its class, its model's name and the dimension, which embedding a first text shows.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.dimension = len(embeddings.embed_query("dimension"))
        kind = type(embeddings)
        names = (getattr(embeddings, name, None) for name in ("model", "model_name"))
        model = next((name for name in names if isinstance(name, str)), "")  # some keep the model itself there
        self.fingerprint = f"{kind.__module__}.{kind.__qualname__}:{model}:{self.dimension}"

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a query."""
        return self._array([self._embeddings.embed_query(text) for text in texts])

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a document."""
        return self._array(self._embeddings.embed_documents(list(texts)))

    def _array(self, vectors: list[list[float]]) -> Float32Array:
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dimension)


class TPVectorStore(VectorStore):
    """Keep documents in an index on disk and find them by any LangChain `Embeddings`.

    With `TPEmbeddings` the index fits the recipe's maps to its documents. Searches are by vectors and scores are cosines,
    unless `mode` is "hybrid" or "lexical"; every other option of `Index.search` is passed on, too. `filter` is a `where`
    dict or a function of a document. Documents are added to, and found in, the store's `namespace`, or that of a call.
    """

    def __init__(self, index: Index, embedding: Embeddings | None = None, *, namespace: str = "") -> None:
        self.index = index
        self.namespace = namespace
        self._embedding = embedding
        self._index_embeddings: TPEmbeddings | None = None
        self._worker = Worker()

    @classmethod
    def open(
        cls,
        path: str | Path,
        embedding: Embeddings | None = None,
        *,
        namespace: str = "",
        **options: Unpack[IndexOptions],
    ) -> TPVectorStore:
        """Open the store at a path, or create it there; `options` are those of `Index.create`.

        An index names its model, so `embedding` may be left out where there is one; else that is an `IndexNotFoundError`.
        """
        if embedding is not None:
            index = Index.open_or_create(path, text_embedder(embedding), **options)
            return cls(index, embedding, namespace=namespace)
        try:
            return cls(Index.open(path), namespace=namespace)
        except IndexNotFoundError as error:
            raise IndexNotFoundError(f"{error}; give `embedding`, and the store is created there") from error

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: list[dict[str, object]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        namespace: str = "",
        **options: object,
    ) -> TPVectorStore:
        """Create a store, or open the one at `path`, and add texts; without a path it lives as long as the object."""
        store = cls._at(path, embedding, namespace, **cast("IndexOptions", options))
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, list[float]]],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, object]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | Path | None = None,
        namespace: str = "",
        **options: Unpack[IndexOptions],
    ) -> TPVectorStore:
        """Create a store, or open the one at `path`, and add texts with the vectors that `embedding` computed before."""
        store = cls._at(path, embedding, namespace, **options)
        store.add_embeddings(text_embeddings, metadatas, ids=ids)
        return store

    @classmethod
    def _at(
        cls, path: str | Path | None, embedding: Embeddings, namespace: str, **options: Unpack[IndexOptions]
    ) -> TPVectorStore:
        """Open or create the store at a path, or in a folder that is removed with the object."""
        if path is not None:
            return cls.open(path, embedding, namespace=namespace, **options)
        folder = Path(tempfile.mkdtemp(prefix="tp-retrieval-"))
        store = cls.open(folder, embedding, namespace=namespace, **options)
        weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store

    @classmethod
    def from_faiss(
        cls,
        folder: str | Path,
        embedding: Embeddings,
        *,
        path: str | Path,
        trust_pickle: bool = False,
        **options: Unpack[IndexOptions],
    ) -> TPVectorStore:
        """Create a store at `path` of what LangChain-community's `FAISS.save_local` wrote, with its vectors, texts and ids.

        `embedding` is the one that made the vectors. `trust_pickle` reads `index.pkl`, as data: it runs no code.
        Raises `InputError` if the folder holds no such store or the vectors have another length.
        """
        documents, vectors = read_store(Path(folder), trust_pickle=trust_pickle)
        embedder = text_embedder(embedding)
        checked_vectors(vectors, len(documents), embedder.dimension)
        index = Index.create(path, embedder, **options)
        index.add(documents, vectors=vectors)
        refit_if_grown(index)
        return cls(index, embedding)

    @property
    def embeddings(self) -> Embeddings | None:
        """The embeddings whose vectors the store can be searched with.

        They are those that were given. Where none were, or the index needs vectors that are not of unit length, they are
        `TPEmbeddings` of the index's own model; None for an index that names none.
        """
        embedding = self._embedding
        loses_lengths = isinstance(embedding, TPEmbeddings) and embedding.normalize and needs_lengths(self.index)
        if embedding is not None and not loses_lengths:
            return embedding
        if self._index_embeddings is None:
            self._index_embeddings = adapter_of_index(self.index, TPEmbeddings)
        return self._index_embeddings

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    # -- changes

    def add_texts(
        self,
        /,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, object]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
        namespace: str | None = None,
        **kwargs: object,
    ) -> list[str]:
        """Add texts, replacing those whose id is there, and return their ids; a missing id is made."""
        documents = _documents(list(texts), metadatas, ids)
        latest = list({document.id: document for document in documents}.values())  # the last one of an id wins
        step = batch_size or len(latest) or 1
        for begin in range(0, len(latest), step):
            self.index.add(latest[begin : begin + step], namespace=self._named(namespace))
        return [str(document.id) for document in documents]

    def add_embeddings(
        self,
        text_embeddings: Iterable[tuple[str, list[float]]],
        metadatas: Iterable[dict[str, object]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        namespace: str | None = None,
    ) -> list[str]:
        """Add texts with the vectors that the store's embeddings computed before, as `add_texts` adds texts.

        Texts are embedded again where the vectors are of unit length and the index maps ones that are not.
        """
        pairs = list(text_embeddings)
        documents = _documents([text for text, _ in pairs], metadatas, ids)
        row_of = {document.id: row for row, document in enumerate(documents)}  # the last one of an id wins
        rows = list(row_of.values())
        latest = [documents[row] for row in rows]
        vectors = _matrix([pairs[row][1] for row in rows])
        if is_scaled_otherwise(self.index, vectors):
            self.index.add(latest, namespace=self._named(namespace))
        elif latest:
            self.index.add(latest, vectors=vectors, namespace=self._named(namespace))
            read_missing(self.index)
        return [str(document.id) for document in documents]

    def merge_from(self, other: TPVectorStore) -> None:
        """Add the documents of another store of the same embeddings, with ids, namespaces and vectors; nothing is embedded.

        Raises `InputError` naming an id that both have, `IncompatibleIndexError` if another model made the other one; then
        nothing is added.
        """
        self.index.merge_from(other.index)

    def delete(self, /, ids: list[str] | None = None, *, namespace: str | None = None, **kwargs: object) -> bool:
        """Remove documents, all of the namespace if no ids are given; unknown ids are passed over."""
        if ids is None:
            self.index.clear(namespace=self._named(namespace))
        else:
            self.index.delete(ids, namespace=self._named(namespace))
        return True

    def _named(self, namespace: str | None) -> str:
        """Return the namespace of a call, by default the store's."""
        return self.namespace if namespace is None else namespace

    # -- reading

    def get_by_ids(self, ids: Sequence[str], /, *, namespace: str | None = None) -> list[LCDocument]:
        """Return documents in the order asked for; unknown ids are passed over."""
        return [_langchain_document(document) for document in self.index.get(ids, namespace=self._named(namespace))]

    def get(
        self,
        ids: str | Sequence[str] | None = None,
        where: dict[str, object] | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        namespace: str | None = None,
    ) -> StoredDocuments:
        """Return ids, texts and metadata of documents, by id, by a filter, or all in the order of adding."""
        asked = [ids] if isinstance(ids, str) else ids
        documents = self.index.get(asked, where=where, namespace=self._named(namespace), limit=limit, offset=offset)
        return {
            "ids": [str(document.id) for document in documents],
            "documents": [document.text for document in documents],
            "metadatas": [dict(document.metadata) for document in documents],
        }

    def similarity_search(self, /, query: str, k: int = 4, filter: Filter = None, **options: object) -> list[LCDocument]:
        """Return the k documents most similar to a query; there are k whenever k pass the filter."""
        return [_document_of(hit) for hit in self.hits(query, k, filter, **cast("SearchOptions", options))]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, **options: Unpack[SearchOptions]
    ) -> list[tuple[LCDocument, float]]:
        """Return the k most similar documents and their scores: cosines, unless another mode was asked for."""
        return [(_document_of(hit), hit.score) for hit in self.hits(query, k, filter, **options)]

    def similarity_search_by_vector(
        self, /, embedding: list[float], k: int = 4, filter: Filter = None, **options: object
    ) -> list[LCDocument]:
        """Return the k documents nearest to a query's vector."""
        return [_document_of(hit) for hit in self._near(embedding, k, filter, **cast("VectorSearchOptions", options))]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **options: Unpack[VectorSearchOptions]
    ) -> list[tuple[LCDocument, float]]:
        """Return the k documents nearest to a query's vector and their cosines."""
        return [(_document_of(hit), hit.score) for hit in self._near(embedding, k, filter, **options)]

    def max_marginal_relevance_search(
        self,
        /,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter = None,
        **options: object,
    ) -> list[LCDocument]:
        """Return k of the `fetch_k` best documents that are unlike each other; `lambda_mult` 1 is relevance alone."""
        asked = cast("SearchOptions", {**_without_mmr(options), "mmr": lambda_mult, "candidates": fetch_k})
        hits = self.hits(query, k, filter, **asked)
        return [_document_of(hit) for hit in hits]

    def max_marginal_relevance_search_by_vector(
        self,
        /,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter = None,
        **options: object,
    ) -> list[LCDocument]:
        """Return k of the `fetch_k` documents nearest to a query's vector that are unlike each other."""
        asked = cast("VectorSearchOptions", {**_without_mmr(options), "mmr": lambda_mult, "candidates": fetch_k})
        hits = self._near(embedding, k, filter, **asked)
        return [_document_of(hit) for hit in hits]

    def hits(self, query: str, k: int = 4, filter: Filter = None, **options: Unpack[SearchOptions]) -> list[Hit]:
        """Return the hits of `Index.search`, by default by vectors alone."""
        restriction = self._restriction(filter, options.get("namespace"))
        asked: SearchOptions = {"mode": "dense", **restriction, **options}
        return self.index.search(query, k, **asked)

    def _near(self, embedding: list[float], k: int, filter: Filter, **options: Unpack[VectorSearchOptions]) -> list[Hit]:
        vectors = _matrix([embedding])
        if is_scaled_otherwise(self.index, vectors):
            raise InputError(
                "embedding: a vector of unit length can't be compared with those of this index, which are not of unit "
                "length; embed the query with the store's own `embeddings`, or search by text"
            )
        restriction = self._restriction(filter, options.get("namespace"))
        asked: VectorSearchOptions = {**restriction, **options}
        return self.index.search_by_vector(vectors[0], k, **asked)

    def _restriction(self, filter: Filter, namespace: str | None) -> Restriction:
        """Return a filter and a namespace as options of a search; a function is called with every document of it."""
        namespace = self._named(namespace)
        if filter is None or isinstance(filter, dict):
            return {"where": filter, "namespace": namespace}
        documents = self.index.get(namespace=namespace)
        ids = [str(document.id) for document in documents if filter(_langchain_document(document))]
        return {"ids": ids, "namespace": namespace}

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _relevance

    def _similarity_search_with_relevance_scores(
        self, /, query: str, k: int = 4, filter: Filter = None, **options: object
    ) -> list[tuple[LCDocument, float]]:
        """Return documents and `Hit.relevance`, whatever the mode."""
        hits = self.hits(query, k, filter, **cast("SearchOptions", options))
        return [(_document_of(hit), float(hit.relevance or 0)) for hit in hits]

    # -- the same on a thread of the store

    aadd_texts = asynchronous(add_texts)

    async def aadd_documents(self, documents: list[LCDocument], **kwargs: object) -> list[str]:
        """Add documents."""
        return await self._worker.run(self.add_documents, documents, **kwargs)

    aadd_embeddings = asynchronous(add_embeddings)
    amerge_from = asynchronous(merge_from)
    adelete = asynchronous(delete)
    aget = asynchronous(get)
    aget_by_ids = asynchronous(get_by_ids)
    asimilarity_search = asynchronous(similarity_search)
    asimilarity_search_with_score = asynchronous(similarity_search_with_score)
    asimilarity_search_by_vector = asynchronous(similarity_search_by_vector)
    _asimilarity_search_with_relevance_scores = asynchronous(_similarity_search_with_relevance_scores)
    amax_marginal_relevance_search = asynchronous(max_marginal_relevance_search)
    amax_marginal_relevance_search_by_vector = asynchronous(max_marginal_relevance_search_by_vector)

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: list[dict[str, object]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        namespace: str = "",
        **options: object,
    ) -> TPVectorStore:
        """Create a store of texts."""
        return await Worker().run(
            cls.from_texts, texts, embedding, metadatas, ids=ids, path=path, namespace=namespace, **options
        )

    @classmethod
    async def afrom_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, list[float]]],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, object]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | Path | None = None,
        namespace: str = "",
        **options: Unpack[IndexOptions],
    ) -> TPVectorStore:
        """Create a store of texts with their vectors."""
        arguments = (text_embeddings, embedding, metadatas)
        return await Worker().run(cls.from_embeddings, *arguments, ids=ids, path=path, namespace=namespace, **options)


def text_embedder(embedding: Embeddings) -> TextEmbedder:
    """Return what an index needs of a LangChain embedding: our own embedder itself, another in a wrapper."""
    return embedding.embedder if isinstance(embedding, TPEmbeddings) else LangChainEmbedder(embedding)


def _documents(
    texts: list[str], metadatas: Iterable[dict[str, object]] | None, ids: Iterable[str | None] | None
) -> list[Document]:
    """Return documents of texts, metadata and ids; a missing id is made."""
    metadata = [{}] * len(texts) if metadatas is None else list(metadatas)
    asked = [None] * len(texts) if ids is None else list(ids)
    if not len(texts) == len(metadata) == len(asked):
        raise InputError(f"texts: {len(texts)} texts, {len(metadata)} metadatas and {len(asked)} ids must be as many")
    rows = zip(texts, metadata, asked, strict=True)
    return [Document(text, fields, id_ or uuid.uuid4().hex) for text, fields, id_ in rows]


def _matrix(embeddings: Sequence[Sequence[float]]) -> Float32Array:
    """Return vectors as an array `(n, dimension) float32`; raise `InputError` if their lengths differ."""
    lengths = sorted({len(vector) for vector in embeddings})
    if len(lengths) > 1:
        raise InputError(f"embeddings: vectors of {', '.join(map(str, lengths))} numbers; all must have as many")
    return np.array(embeddings, dtype=np.float32).reshape(len(embeddings), *lengths)


def _document_of(hit: Hit) -> LCDocument:
    """Return a hit's document, with the text around it where the search expanded its hits."""
    return LCDocument(page_content=hit.passage, metadata=dict(hit.document.metadata), id=hit.document.id)


def _langchain_document(document: Document) -> LCDocument:
    return LCDocument(page_content=document.text, metadata=dict(document.metadata), id=document.id)


def _without_mmr(options: dict[str, object]) -> dict[str, object]:
    """Return options; raise `InputError` for those that `lambda_mult` and `fetch_k` stand for."""
    for name, argument in (("mmr", "lambda_mult"), ("candidates", "fetch_k")):
        if name in options:
            raise InputError(f"{name}: give {argument} instead")
    return options


def _relevance(cosine: float) -> float:
    """Bring a cosine into 0 to 1; it grows with similarity."""
    return min(max((1 + cosine) / 2, 0.0), 1.0)
