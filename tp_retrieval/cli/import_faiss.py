"""`tp-retrieval import-faiss`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.output import Json, Kind, print_report


def import_faiss(
    folder: Annotated[Path, typer.Argument(help="Folder that LangChain-community's FAISS.save_local wrote.")],
    into: Annotated[Path, typer.Option(help="Folder of the new index.")],
    embedder: Annotated[str, typer.Option(help="Name of the embedder that made the vectors; opening the index checks it.")],
    trust_pickle: Annotated[bool, typer.Option("--trust-pickle", help="Read index.pkl, as data: it runs no code.")] = False,
    kind: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Import a FAISS store of LangChain-community, with its vectors, documents and ids."""
    from tp_retrieval import Index
    from tp_retrieval.indexing.importers.langchain_faiss import read_store
    from tp_retrieval.types import PrecomputedVectors

    documents, vectors = read_store(folder, trust_pickle=trust_pickle)
    with Index.create(into, PrecomputedVectors(vectors.shape[1], embedder), kind=kind) as index:
        index.add(documents, vectors=vectors)
        report = {"index": str(into), "documents": len(index), "dimension": vectors.shape[1], "embedder": embedder}
    print_report(report, as_json)
