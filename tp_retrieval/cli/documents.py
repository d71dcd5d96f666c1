"""`tp-retrieval list`, `get`, `add` and `delete`: the documents of an index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import tp_retrieval
from tp_retrieval.cli.model_options import AS_STORED, LoadingOptions, with_model_options
from tp_retrieval.cli.output import (
    IndexFolder,
    Json,
    Namespace,
    Where,
    document_record,
    excerpt,
    hint_unknown_keys,
    parsed_object,
    print_json,
)
from tp_retrieval.documents.jsonl import read_records

_SHORT = 100  # characters of a text in a list


def list_documents(
    index: IndexFolder,
    where: Where = None,
    namespace: Namespace = "",
    limit: Annotated[int | None, typer.Option(min=0, help="Most documents to list.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Documents to leave out first.")] = 0,
    as_json: Json = False,
) -> None:
    """List documents in the order of adding: their ids and how their texts begin."""
    condition = None if where is None else parsed_object(where, "--where")
    with tp_retrieval.Index.open(index) as opened:
        documents = opened.get(where=condition, namespace=namespace, limit=limit, offset=offset)
        count = opened.namespaces().get(namespace, 0)
        hint_unknown_keys(opened, condition, documents)
    if as_json:
        print_json({"documents": count, "listed": [document_record(document) for document in documents]})
        return
    console = Console(soft_wrap=True)
    for document in documents:
        console.print(Text(str(document.id), style="cyan"), Text(excerpt(document.text, _SHORT)), sep="  ")
    console.print(Text(f"{len(documents)} of {count} documents", style="dim"))


def get(
    index: IndexFolder,
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.")],
    namespace: Namespace = "",
    as_json: Json = False,
) -> None:
    """Show documents by id, with text and metadata; exit 1 where one is missing."""
    with tp_retrieval.Index.open(index) as opened:
        documents = opened.get(ids, namespace=namespace)
    if as_json:
        print_json([document_record(document) for document in documents])
    else:
        console = Console(soft_wrap=True)
        for document in documents:
            console.print(Text(str(document.id), style="bold cyan"))
            for name, value in document.metadata.items():
                console.print(Text(f"{name}: {value}", style="dim"))
            console.print(Text(document.text + "\n"))
    missing = [id_ for id_ in ids if id_ not in {document.id for document in documents}]
    if missing:
        sys.stderr.write(f"tp-retrieval: no document {', '.join(map(repr, missing))}\n")
        raise typer.Exit(1)


@with_model_options
def add(
    index: IndexFolder,
    text: Annotated[str | None, typer.Argument(help="Text of the document; by default stdin.")] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Its id, of which a document is replaced; by default a new one.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="Its metadata, as JSON: '{\"year\": 2020}'")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help='Stdin holds a document a line: {"text": …, "id": …, "metadata": …}.')
    ] = False,
    namespace: Annotated[str, typer.Option(help="Add to this namespace, apart from the documents of others.")] = "",
    loading: LoadingOptions = AS_STORED,
    as_json: Json = False,
) -> None:
    """Add a document to an index, or one for each line of stdin; it is durable when its id is printed."""
    if jsonl and (text is not None or id is not None or metadata is not None):
        raise tp_retrieval.InputError("--jsonl: texts, ids and metadata are in the lines of stdin")
    content = sys.stdin.read() if text is None else text
    if jsonl:
        records = [record for _, record in read_records(content, Path("stdin"))]
        documents = [tp_retrieval.Document(record.titled_text, record.metadata, record.id) for record in records]
    else:
        documents = [tp_retrieval.Document(content, {} if metadata is None else parsed_object(metadata, "--metadata"), id)]
    if not any(document.text.strip() for document in documents):
        raise tp_retrieval.InputError("text: there is none; give it as an argument or on stdin")
    with loading.open_index(index) as opened:
        ids = opened.add(documents, namespace=namespace, show_progress=sys.stderr.isatty())
        count = opened.namespaces()[namespace]
    if as_json:
        print_json({"ids": ids, "documents": count})
    else:
        sys.stdout.write("".join(f"{id_}\n" for id_ in ids))


def delete(
    index: IndexFolder,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    where: Where = None,
    namespace: Namespace = "",
    everything: Annotated[bool, typer.Option("--all", help="Remove every document of the namespace.")] = False,
    as_json: Json = False,
) -> None:
    """Remove documents by id, those whose metadata fit, of some ids those that fit, or a whole namespace."""
    condition = None if where is None else parsed_object(where, "--where")
    if everything == bool(ids or condition):
        raise tp_retrieval.InputError("give ids, --where or --all, and --all alone")
    with tp_retrieval.Index.open(index) as opened:
        if everything:
            removed = opened.clear(namespace=namespace)
        else:
            removed = opened.delete(ids or None, where=condition, namespace=namespace)
        count = opened.namespaces().get(namespace, 0)
        hint_unknown_keys(opened, condition, removed)
    if as_json:
        print_json({"removed": removed, "documents": count})
    else:
        sys.stdout.write(f"{removed} removed, {count} documents\n")
