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
    from tp_retrieval.indexing.importers.langchain_faiss import read_store

    documents, vectors = read_store(folder, trust_pickle=trust_pickle)
    with Index.create(into, _Foreign(vectors.shape[1], embedder), kind=kind) as index:
        index.add(documents, vectors=vectors)
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
