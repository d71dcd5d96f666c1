"""`tp-retrieval import-faiss` and `import-chroma`: stores of other libraries, with their vectors."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tp_retrieval.cli.output import Json, Kind, print_report

if TYPE_CHECKING:
    from tp_retrieval import Document
    from tp_retrieval.types import Float32Array, PrecomputedVectors

Into = Annotated[Path, typer.Option(help="Folder of the new index.")]
EmbedderName = Annotated[str, typer.Option(help="Name of the embedder that made the vectors; opening the index checks it.")]


def import_faiss(
    folder: Annotated[Path, typer.Argument(help="Folder that LangChain-community's FAISS.save_local wrote.")],
    into: Into,
    embedder: EmbedderName,
    trust_pickle: Annotated[bool, typer.Option("--trust-pickle", help="Read index.pkl, as data: it runs no code.")] = False,
    kind: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Import a FAISS store of LangChain-community, with its vectors, documents and ids."""
    from tp_retrieval.indexing.importers.langchain_faiss import read_store
    from tp_retrieval.types import PrecomputedVectors

    documents, vectors = read_store(folder, trust_pickle=trust_pickle)
    report = _create(into, PrecomputedVectors(vectors.shape[1], embedder), kind, [(documents, vectors)])
    print_report(report, as_json)


def import_chroma(
    folder: Annotated[Path, typer.Argument(help="Folder that Chroma's PersistentClient wrote; it stays as it is.")],
    into: Into,
    embedder: EmbedderName,
    collection: Annotated[str | None, typer.Option(help="Name of the collection, where there are several.")] = None,
    kind: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Import a collection of Chroma, with its vectors, documents and ids."""
    from tp_retrieval.indexing.importers.chroma import open_collection
    from tp_retrieval.types import PrecomputedVectors

    with open_collection(folder, collection) as (opened, summary):
        report = _create(into, PrecomputedVectors(summary.dimension, embedder), kind, opened.batches())
    if opened.space != "cosine" and not summary.one_length:
        sys.stderr.write(
            f"tp-retrieval: the collection compares by {opened.space} and its vectors have several lengths; "
            "the index compares by cosine, which orders them otherwise\n"
        )
    print_report(report | {"collection": opened.name, "without_text": summary.without_text}, as_json)


def _create(
    into: Path, embedder: PrecomputedVectors, kind: str, batches: Iterable[tuple[list[Document], Float32Array]]
) -> dict[str, object]:
    """Create an index of documents and vectors, and return the fields of the report."""
    from tp_retrieval import Index

    with Index.create(into, embedder, kind=kind) as index:
        for documents, vectors in batches:
            index.add(documents, vectors=vectors)
        return {
            "index": str(into),
            "documents": len(index),
            "dimension": embedder.dimension,
            "embedder": embedder.fingerprint,
        }
