"""What the model does by itself: embeddings in OpenAI's shape, reranking in Cohere's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from fastapi.responses import Response

from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import encode, hold, listing
from tp_retrieval.integrations.server.routes.dependencies import Limited, Served, held
from tp_retrieval.integrations.server.schemas.requests import EmbeddingsRequest, RerankRequest
from tp_retrieval.integrations.server.schemas.responses import (
    EmbeddingsResponse,
    ModelRecord,
    ModelsResponse,
    RerankResponse,
)
from tp_retrieval.types import Float32Array

router = APIRouter()

_FLOAT = 4  # bytes of a vector's number


def _input_texts(asked: EmbeddingsRequest, service: Served, limits: Limited) -> list[str]:
    service.check_model(asked.model)
    texts = asked.input
    if isinstance(texts, list) and texts and isinstance(texts[0], (int, list)):
        raise RequestError(
            400,
            "input: token ids are of another model's tokenizer; send texts. LangChain's OpenAIEmbeddings does with "
            "check_embedding_ctx_length=False",
            "input",
        )
    return limits.texts_of([texts] if isinstance(texts, str) else texts, "input")


def _documents(asked: RerankRequest, service: Served, limits: Limited) -> list[str]:
    service.check_model(asked.model)
    limits.checked(asked.query, "query")
    return limits.texts_of(asked.documents, "documents")


@router.get("/v1/models")
def list_models(service: Served) -> ModelsResponse:
    """List the model in OpenAI's shape."""
    return ModelsResponse(data=[ModelRecord(id=service.model, dimension=service.embedder.dimension)])


@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
def embed(asked: EmbeddingsRequest, service: Served, texts: Annotated[list[str], Depends(_input_texts)]) -> Response:
    """Embed texts through the recipe's document template, or with `input_type` "query" its query template.

    Vectors are of unit length. `dimensions` keeps the first ones, and brings them to unit length again. Texts longer
    than the recipe's `max_tokens` are cut; `usage.cut_tokens` says by how many tokens in all.
    """
    width = service.embedder.dimension
    if asked.dimensions is not None and asked.dimensions > width:
        raise RequestError(400, f"dimensions: {asked.dimensions} are more than the vectors' {width}", "dimensions")
    hold(len(texts) * width * _FLOAT)
    vectors, tokens, cut = service.embed(texts, asked.role)
    if asked.dimensions is not None:
        vectors = vectors[:, : asked.dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cut_tokens": cut}
    fields = {"object": "list", "model": service.model, "usage": usage}
    return listing(fields, "data", _embeddings(vectors, asked.encoding_format == "base64"))


@router.post("/v2/rerank", include_in_schema=False)
@router.post("/v1/rerank", response_model=RerankResponse)
def rerank(asked: RerankRequest, service: Served, texts: Annotated[list[str], Depends(_documents)]) -> Response:
    """Score documents by how well they answer a query; best first, in the method's own unit."""
    ranked, tokens = service.rerank(asked.query, texts, asked.top_n)
    results: list[dict[str, object]] = [{"index": i, "relevance_score": score} for i, score in ranked]
    if asked.return_documents:
        results = [result | {"document": {"text": texts[i]}} for result, (i, _) in zip(results, ranked, strict=True)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return held({"id": "rerank", "model": service.model, "usage": usage}, "results", results)


def _embeddings(vectors: Float32Array, as_base64: bool) -> Iterator[str]:
    """Yield vectors as JSON objects in OpenAI's shape."""
    for i, row in enumerate(vectors):
        numbers = base64.b64encode(row.astype("<f4").tobytes()).decode() if as_base64 else row.tolist()
        yield encode({"object": "embedding", "index": i, "embedding": numbers})
