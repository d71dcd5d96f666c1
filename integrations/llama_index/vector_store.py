"""An `Index` as LlamaIndex vector store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from tp_retrieval import Document, Hit, IncompatibleIndexError, Index, IndexNotFoundError, InputError
from tp_retrieval.indexing.index import IndexOptions
from tp_retrieval.indexing.search.query import HitShape, VectorSearchOptions, Where
from tp_retrieval.integrations.llama_index.embedding import TPEmbedding
from tp_retrieval.integrations.llama_index.filters import where_of
from tp_retrieval.integrations.loading import adapter_of_index, is_scaled_otherwise, read_missing
from tp_retrieval.integrations.worker import Worker, asynchronous
from tp_retrieval.types import PrecomputedVectors, TextEmbedder

_VECTORS = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
_WORDS = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
_BOTH = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_OF_DOCUMENT = "ref_doc_id"


class TPVectorStore(BasePydanticVectorStore):
    """Keep nodes in an index on disk: by vectors, words or both, filtered, with MMR.

    `embed_model` is the one that the nodes are embedded with. With a `TPEmbedding` the index fits the recipe's maps to its
    nodes and can be opened anywhere; with another, or none, vectors are stored unmapped. Where an index is at the path that
    names its model, `embed_model` may be left out, and is then a `TPEmbedding` of that model. The store sees the documents
    of its `namespace` alone. `options` are those of `Index.create`.
    """

    stores_text: bool = True
    path: str
    embed_model: BaseEmbedding | None = Field(default=None, exclude=True)
    namespace: str = ""
    options: dict[str, object] = Field(default_factory=dict)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _index: Index | None = PrivateAttr(default=None)
    _is_model_of_index: bool = PrivateAttr(default=False)
    _worker: Worker = PrivateAttr(default_factory=Worker)

    def __init__(
        self,
        path: str | Path,
        embed_model: BaseEmbedding | None = None,
        *,
        namespace: str = "",
        options: IndexOptions | None = None,  # the field, from pickling
        **more: Unpack[IndexOptions],
    ) -> None:
        given: dict[str, Any] = {name: value for name, value in more.items() if name not in type(self).model_fields}
        fields: dict[str, Any] = {"path": str(path), "embed_model": embed_model, "namespace": namespace}
        fields["options"] = {**(options or {}), **given}
        super().__init__(**fields)
        if embed_model is None:
            self._opened()  # which names the model

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process makes the store of; an index there names its model again."""
        model = None if self._is_model_of_index else self.embed_model
        arguments = {"path": self.path, "embed_model": model, "namespace": self.namespace, "options": self.options}
        return {
            "__dict__": arguments,
            "__pydantic_extra__": None,
            "__pydantic_fields_set__": set(arguments),
            "__pydantic_private__": None,
        }

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex finds this class."""
        return "TPVectorStore"

    @property
    def client(self) -> Index | None:
        """The index, None before the first node creates it."""
        return self._opened()

    def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._is_model_of_index:
            self.embed_model, self._is_model_of_index = None, False

    def persist(self, persist_path: str = "", fs: object = None) -> None:
        """Do nothing: every change is on disk."""

    # -- changes

    def add(self, /, nodes: Sequence[BaseNode], **kwargs: object) -> list[str]:
        """Add nodes that are embedded, replacing those whose id is there, and return their ids."""
        latest = {node.node_id: node for node in nodes}
        if not latest:
            return []
        vectors = np.array([node.get_embedding() for node in latest.values()], dtype=np.float32)
        index = self._created(vectors.shape[1])
        documents = [_document(node) for node in latest.values()]
        if is_scaled_otherwise(index, vectors):
            texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in latest.values()]
            vectors = index.embedder.embed_documents(texts)
        index.add(documents, vectors=vectors, namespace=self.namespace)
        read_missing(index)
        return [node.node_id for node in nodes]

    def delete(self, /, ref_doc_id: str, **kwargs: object) -> None:
        """Remove all nodes of a source document."""
        opened = self._opened()
        if opened is not None:
            opened.delete(where={_OF_DOCUMENT: ref_doc_id}, namespace=self.namespace)

    def delete_nodes(
        self, /, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: object
    ) -> None:
        """Remove nodes by id, or those that fit filters, or both at once."""
        where = where_of(filters)
        opened = self._opened()
        if opened is not None and (node_ids is not None or where):
            opened.delete(node_ids, where=where, namespace=self.namespace)

    def clear(self) -> None:
        """Remove every node of the namespace."""
        opened = self._opened()
        if opened is not None:
            opened.clear(namespace=self.namespace)

    # -- reading

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by id, or those that fit filters, or all."""
        opened = self._opened()
        if opened is None:
            return []
        documents = opened.get(node_ids, where=where_of(filters), namespace=self.namespace)
        return [_node(document) for document in documents]

    def query(self, /, query: VectorStoreQuery, **kwargs: object) -> VectorStoreQueryResult:
        """Return the nodes of a query, best first, with cosines, BM25 or fused scores by its mode.

        `alpha` is the dense share of a hybrid search, `mmr_threshold` the share of relevance in MMR. Raises `InputError`
        for the modes that fit a classifier to one query. `expand`, `group_by` and `min_relevance` are those of
        `Index.search`; with `relevance=True` the similarities are `Hit.relevance`.
        """
        opened = self._opened()
        hits = [] if opened is None else self._hits(opened, query, kwargs)
        return VectorStoreQueryResult(
            nodes=[_node(replace(hit.document, text=hit.passage)) for hit in hits],
            similarities=[float(hit.relevance or 0) if kwargs.get("relevance") else hit.score for hit in hits],
            ids=[str(hit.document.id) for hit in hits],
        )

    def _hits(self, opened: Index, query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> list[Hit]:
        where: Where | None = where_of(query.filters)
        if query.doc_ids:  # an empty list restricts nothing in LlamaIndex
            of_documents = {_OF_DOCUMENT: {"$in": query.doc_ids}}
            where = of_documents if where is None else {"$and": [where, of_documents]}
        k, ids = query.similarity_top_k, query.node_ids or None
        shape: HitShape = {
            "expand": kwargs.get("expand"),
            "group_by": kwargs.get("group_by"),
            "min_relevance": kwargs.get("min_relevance"),
        }
        options: VectorSearchOptions = {
            "where": where,
            "ids": ids,
            "namespace": self.namespace,
            "expand": shape["expand"],
            "group_by": shape["group_by"],
            "min_relevance": shape["min_relevance"],
        }
        if query.mode in _WORDS:
            limit = query.sparse_top_k or k
            return opened.search(
                query.query_str or "", limit, mode="lexical", where=where, ids=ids, namespace=self.namespace, **shape
            )
        vector = np.array(query.query_embedding, dtype=np.float32)
        if is_scaled_otherwise(opened, vector.reshape(1, -1)):
            if query.query_str is None:
                raise InputError(
                    "query_embedding: a vector of unit length can't be compared with those of this index, which are not; "
                    "give query_str too, or open the store without embed_model and embed with its own"
                )
            vector = opened.embedder.embed_queries([query.query_str])[0]
        if query.mode == VectorStoreQueryMode.MMR:
            threshold = query.mmr_threshold if query.mmr_threshold is not None else kwargs.get("mmr_threshold", 0.5)
            options["mmr"] = threshold
            return opened.search_by_vector(vector, k, **options)
        if query.mode in _BOTH:
            options |= {"text": query.query_str or "", "dense_weight": query.alpha}
            return opened.search_by_vector(vector, query.hybrid_top_k or k, **options)
        if query.mode in _VECTORS:
            return opened.search_by_vector(vector, k, **options)
        supported = ", ".join(mode.value for mode in (*_VECTORS, *_WORDS, *_BOTH))
        raise InputError(f"mode: {query.mode.value!r} must be one of {supported}")

    # -- the index

    def _opened(self) -> Index | None:
        """Return the index, None if there is none at the path yet."""
        if self._index is None:
            model = self.embed_model
            with suppress(IndexNotFoundError):
                self._index = Index.open(self.path, model.embedder if isinstance(model, TPEmbedding) else None)
                if model is None:
                    self.embed_model = adapter_of_index(self._index, TPEmbedding)
                    self._is_model_of_index = self.embed_model is not None
                elif not isinstance(model, TPEmbedding):
                    self._check(self._index)
        return self._index

    def _check(self, opened: Index) -> None:
        """Refuse an index of another model: LlamaIndex passes the vectors, so only the model's name can be compared."""
        info = opened.info()
        fingerprint = self._embedder(info.dimension).fingerprint
        if fingerprint != info.fingerprint:
            self.close()
            raise IncompatibleIndexError(f"{self.path} was made by {info.fingerprint}, asked to hold {fingerprint}")

    def _created(self, dimension: int) -> Index:
        opened = self._opened()
        if opened is None:
            options = cast("IndexOptions", self.options)
            self._index = opened = Index.open_or_create(self.path, self._embedder(dimension), **options)
        return opened

    def _embedder(self, dimension: int) -> TextEmbedder:
        if isinstance(self.embed_model, TPEmbedding):
            return self.embed_model.embedder
        name = "" if self.embed_model is None else self.embed_model.model_name
        return PrecomputedVectors(dimension, f"llama-index:{name}:{dimension}")

    # -- the same on a thread of the store

    async_add = asynchronous(add)
    adelete = asynchronous(delete)
    adelete_nodes = asynchronous(delete_nodes)
    aclear = asynchronous(clear)
    aget_nodes = asynchronous(get_nodes)
    aquery = asynchronous(query)


def _document(node: BaseNode) -> Document:
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return Document(text, node_to_metadata_dict(node, remove_text=True, flat_metadata=False), node.node_id)


def _node(document: Document) -> BaseNode:
    metadata = dict(document.metadata)
    if "_node_content" not in metadata:  # added by other means than LlamaIndex
        return TextNode(text=document.text, metadata=metadata, id_=str(document.id))
    return metadata_dict_to_node(metadata, text=document.text)
