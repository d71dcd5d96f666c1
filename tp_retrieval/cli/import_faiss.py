"""`tp-retrieval import-faiss`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.output import Json, Kind, print_fields, print_json
from tp_retrieval.errors import InputError
from tp_retrieval.types import Float32Array

_BATCH = 1000


def import_faiss(
    folder: Annotated[Path, typer.Argument(help="Folder that LangChain-community's FAISS.save_local wrote.")],
    into: Annotated[Path, typer.Option(help="Folder of the new index.")],
    embedder: Annotated[str, typer.Option(help="Name of the embedder that made the vectors; opening asks for it.")],
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read index.pkl, admitting document classes only.")
    ] = False,
    kind: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Take over a FAISS store of LangChain-community, with its vectors, documents and ids."""
    from tp_retrieval import Index
    from tp_retrieval.indexing.checks import checked_vectors, prepared
    from tp_retrieval.indexing.langchain_faiss import read_documents, read_vectors

    vectors = read_vectors(folder)
    if not trust_pickle:
        raise InputError(
            f"{folder}: index.faiss holds {len(vectors)} vectors of {vectors.shape[1]} numbers; texts are in index.pkl. "
            "If you trust who wrote it, add --trust-pickle: it is read with document classes only"
        )
    documents = read_documents(folder)
    if len(documents) != len(vectors):
        raise InputError(f"{folder}: index.faiss holds {len(vectors)} vectors, index.pkl {len(documents)} documents")
    prepared(documents)  # before anything is made
    checked_vectors(vectors, *vectors.shape)
    with Index.create(into, _Foreign(vectors.shape[1], embedder), kind=kind) as index:
        for begin in range(0, len(documents), _BATCH):
            index.add(documents[begin : begin + _BATCH], vectors=vectors[begin : begin + _BATCH])
        report = {"index": str(into), "documents": len(index), "dimension": vectors.shape[1], "embedder": embedder}
    if as_json:
        print_json(report)
    else:
        print_fields(report)


@dataclass(frozen=True)
class _Foreign:
    """Stand for the embedder that made the vectors, which is not at hand."""

    dimension: int
    fingerprint: str

    def embed_documents(self, texts: Sequence[str]) -> Float32Array:
        """Refuse."""
        raise InputError(f"{self.fingerprint} is not at hand to embed {len(texts)} texts")

    embed_queries = embed_documents
