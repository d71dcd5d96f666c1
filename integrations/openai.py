"""The embeddings of a server in OpenAI's shape (vLLM, Ollama, llama.cpp, TEI, OpenAI …) as an embedder of an index.

    embedder = OpenAIEmbedder("http://localhost:8000/v1", "my-model", query_prefix="Query: ")
    with Index.create("index", embedder) as index:
        index.add(documents)

Such a server gives no states between the blocks of its model, so no recipe can read it: its vectors are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tp_retrieval.errors import InputError, ModelNotFoundError, OptionalDependencyError

try:
    import openai
except ImportError as error:
    raise OptionalDependencyError("openai", "openai") from error

from tp_retrieval.types import Float32Array, checked_texts, checked_vectors

__all__ = ["OpenAIEmbedder"]

_NO_KEY = "none"  # for servers that ask for none; the client wants one


class OpenAIEmbedder:
    """An embedder by the endpoint `URL/embeddings`, for `Index` and `CachedEmbedder`.

    `query_prefix` and `document_prefix` are what the model wants before a text of each role. `dimensions` asks the server
    for shorter vectors. An index knows the model by its name, prefixes and length: give `version` where a name is served
    with other weights than before. `batch` texts go in one request; failed requests are tried again. `client` is an
    `openai.OpenAI` of your own. Raises `ModelNotFoundError` for a server that does not answer or does not have the model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        query_prefix: str = "",
        document_prefix: str = "",
        dimensions: int | None = None,
        version: str = "",
        batch: int = 64,
        timeout: float = 60.0,
        client: openai.OpenAI | None = None,
    ) -> None:
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            raise InputError(f"batch: {batch!r} must be a whole number from 1")
        self._url = url
        self._model = model
        self._query_prefix = query_prefix
        self._document_prefix = document_prefix
        self._dimensions = dimensions
        self._version = version
        self._batch = batch
        self._client = client or openai.OpenAI(base_url=url, api_key=api_key or _NO_KEY, timeout=timeout)

    @cached_property
    def dimension(self) -> int:
        """Length of the vectors, which a first text shows."""
        return len(self._asked(["dimension"])[0])

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the model's name, version, prefixes and length."""
        parts = [self._model, self._version, self._query_prefix, self._document_prefix, self.dimension]
        return f"openai:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"

    def embed_queries(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a query, `(n, dimension) float32`."""
        return self._embed(self._query_prefix, texts)

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a document, `(n, dimension) float32`."""
        return self._embed(self._document_prefix, texts)

    def _embed(self, prefix: str, texts: Sequence[str]) -> Float32Array:
        prefixed = [prefix + text for text in checked_texts(texts)]
        parts = [self._asked(prefixed[i : i + self._batch]) for i in range(0, len(prefixed), self._batch)]
        vectors = np.array([vector for part in parts for vector in part], dtype=np.float32)
        return checked_vectors(vectors.reshape(-1, self.dimension) if not parts else vectors, len(prefixed), self.dimension)

    def _asked(self, texts: list[str]) -> list[list[float]]:
        """Return the server's vectors of some texts, in their order."""
        asked: dict[str, Any] = {} if self._dimensions is None else {"dimensions": self._dimensions}
        try:
            answer = self._client.embeddings.create(model=self._model, input=texts, encoding_format="float", **asked)
        except openai.APIConnectionError as error:
            raise ModelNotFoundError(
                f"{self._url} does not answer ({error.__cause__ or error}); is the server running?"
            ) from error
        except openai.APIStatusError as error:
            message = " ".join(str(error.message).split())
            raise ModelNotFoundError(f"{self._url} gives no embeddings of {self._model!r}: {message}") from error
        if len(answer.data) != len(texts):
            raise InputError(f"{self._url} gave {len(answer.data)} vectors for {len(texts)} texts")
        return [entry.embedding for entry in sorted(answer.data, key=lambda entry: entry.index)]
