"""The command line: one command a file, over the public API."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib import metadata
from typing import Annotated, NoReturn, TextIO

import typer
from typer.exceptions import Abort, TyperException

from tp_retrieval.cli import (
    ablate,
    analyze,
    ask,
    copy,
    documents,
    embed,
    embed_corpus,
    evaluate,
    import_stores,
    index,
    info,
    rebuild,
    rerank,
    search,
    serve,
    tune,
    verify,
)
from tp_retrieval.errors import TPRetrievalError

app = typer.Typer(
    name="tp-retrieval",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tp-retrieval {metadata.version('tp-retrieval')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Turn a frozen language model into a retrieval stack: embed, index, search, rerank, measure."""


app.command("index")(index.index)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("list")(documents.list_documents)
app.command("get")(documents.get)
app.command("add")(documents.add)
app.command("delete")(documents.delete)
app.command("rerank")(rerank.rerank)
app.command("embed")(embed.embed)
app.command("serve")(serve.serve)
app.command("mcp")(serve.mcp)
app.command("embed-corpus")(embed_corpus.embed_corpus)
app.command("copy")(copy.copy)
app.command("info")(info.info)
app.command("duplicates")(info.duplicates)
app.command("rebuild")(rebuild.rebuild)
app.command("verify")(verify.verify)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(ablate.app, name="ablate")
app.add_typer(tune.app, name="tune")
app.command("analyze")(analyze.analyze)
app.command("import-faiss")(import_stores.import_faiss)
app.command("import-chroma")(import_stores.import_chroma)


def main() -> None:
    """Run the command line; a caller's mistake is one line on stderr and exit code 2."""
    warnings.showwarning = _one_line
    _log_to_stderr()
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except TPRetrievalError as error:
        _end(str(error))
    except TyperException as error:
        message = error.format_message()
        _end(message and f"{message.rstrip('.')}; see --help")  # none where no command was given, and help was shown
    except Abort:
        _end("interrupted", 130)


def _end(message: str, code: int = 2) -> NoReturn:
    if message:
        sys.stderr.write(f"tp-retrieval: {' '.join(message.split())}\n")
    sys.exit(code)


def _log_to_stderr() -> None:
    """Write the package's log as the other lines on stderr, and what is long beforehand: the unpacking of a model."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("tp-retrieval: %(message)s"))
    logging.getLogger("tp_retrieval").addHandler(handler)
    logging.getLogger("tp_retrieval.embedding.model.gguf").setLevel(logging.INFO)


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category.__module__.startswith("tp_retrieval"):
        sys.stderr.write(f"tp-retrieval: {message}\n")
