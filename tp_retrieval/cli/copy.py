"""`tp-retrieval copy`."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm.auto import tqdm

import tp_retrieval
from tp_retrieval.cli.output import IndexFolder, Json, Namespace, parsed_object, print_report

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore

_EMBEDDINGS = ("embedding", "embeddings", "embedding_function", "embedding_service")


def copy(
    index: IndexFolder,
    to: Annotated[str, typer.Option(help="Class of a LangChain vector store, such as langchain_chroma.Chroma.")],
    options: Annotated[str, typer.Option(help="Its other arguments, as a JSON object.")] = "{}",
    namespace: Namespace = "",
    batch: Annotated[int, typer.Option(min=1, help="Documents added together.")] = 256,
    flat: Annotated[bool, typer.Option(help="Write nested metadata as JSON strings, for stores of plain values.")] = False,
    as_json: Json = False,
) -> None:
    """Copy an index's documents and vectors into another vector store; run it again after an interrupt."""
    try:
        from tp_retrieval.integrations.langchain import TPIndexEmbeddings, copy_index
    except ImportError as error:
        raise tp_retrieval.OptionalDependencyError(error.name or "langchain-core", "langchain") from error

    store_class = _class(to)
    arguments = parsed_object(options, "--options")
    target = hashlib.sha256(f"{to} {namespace}{json.dumps(arguments, sort_keys=True)}".encode()).hexdigest()[:8]
    progress = index.absolute().with_name(f"{index.name}.copy-{target}")
    with tp_retrieval.Index.open(index) as opened:
        embeddings = TPIndexEmbeddings(opened)
        store = _store(store_class, to, arguments, embeddings)
        count = opened.namespaces().get(namespace, 0)
        with tqdm(total=count, unit="document", disable=not sys.stderr.isatty()) as bar:
            copied = copy_index(
                opened,
                store,
                embeddings,
                namespace=namespace,
                batch=batch,
                flat=flat,
                progress=progress,
                on_progress=bar.update,
            )
        done = {"index": str(index), "to": to, "copied": copied, "documents": count}
    print_report(done, as_json)


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise tp_retrieval.InputError(f"--to: there is no class {path!r} here ({error})") from error


def _store(store_class: Any, path: str, options: dict[str, Any], embeddings: Embeddings) -> VectorStore:
    """Create a store; pass our embeddings by the name that its class has for them."""
    try:
        name = next((name for name in inspect.signature(store_class).parameters if name in _EMBEDDINGS), None)
        if name is None:
            raise tp_retrieval.InputError(f"--to: {path} takes none of {', '.join(_EMBEDDINGS)}; it is no vector store")
        store: VectorStore = store_class(**{name: embeddings}, **options)
    except (TypeError, ValueError) as error:
        if isinstance(error, tp_retrieval.InputError):
            raise
        raise tp_retrieval.InputError(f"--to: {path} does not take these options ({error})") from error
    return store
