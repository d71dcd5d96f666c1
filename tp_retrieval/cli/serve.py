"""`tp-retrieval serve` and `mcp`: indexes over HTTP, and over stdin and stdout."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import tp_retrieval
from tp_retrieval.cli.model_options import AS_STORED, DEFAULT_MODEL, LoadingOptions, ModelOptions, with_model_options
from tp_retrieval.cli.output import RecipeOption

if TYPE_CHECKING:
    from tp_retrieval.integrations.server import ApiKey

KEYS = "TP_RETRIEVAL_API_KEYS"
EVERYWHERE = ("", "0.0.0.0", "::")  # addresses of every interface


@with_model_options
def serve(
    indexes: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of indexes to search, served under the folder's name or NAME=FOLDER."),
    ] = None,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at: 0.0.0.0 is every one the machine has, unix:FILE a socket of its own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    rerank: Annotated[str, typer.Option(help="query-likelihood, yes-no, choice, or none.")] = "query-likelihood",
    batching: Annotated[bool, typer.Option(help="Let the model read the texts of many requests together.")] = True,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; more are answered with 429.")] = 256,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request; more are answered with 413.")] = 2048,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name to answer to, besides localhost and --host; * is any, as with API keys. May be repeated."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the indexes that are made through the server; those in it are served.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="JSON file of API keys with rights: [{key, write, indexes, namespace}, ...].")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nobody change an index.")] = False,
    mcp_write: Annotated[
        bool, typer.Option("--mcp-write", help="Let agents at /mcp change documents, with keys that may.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Site whose pages may use the server, as https://app.example. May be repeated.")
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line of JSON for each request on stderr, without texts.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Only 1: each process would hold the model once more.")] = 1,
    graceful_timeout: Annotated[int, typer.Option(min=1, help="Seconds to answer what is open when told to end.")] = 60,
) -> None:
    """Serve embeddings, indexes, search, reranking and answers over HTTP; the page at / searches.

    API keys, if there should be any, are in the environment variable TP_RETRIEVAL_API_KEYS, separated by commas, and may do
    everything, or in the file --keys, each with its rights.
    """
    try:
        from tp_retrieval.integrations.server import Limits, Settings, create_app, listen, read_keys
    except ImportError as error:
        raise tp_retrieval.OptionalDependencyError(error.name or "fastapi", "server") from error

    if workers > 1:
        raise tp_retrieval.InputError(
            "--workers: one process serves all, since the model computes the texts of many requests together; more would "
            "hold it as often, and share no batch. Start servers on several machines, behind a proxy"
        )
    if access_log:
        _log_requests()
    folders = named(indexes or [])
    method = None if rerank == "none" else rerank
    api_keys: list[str | ApiKey] = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    api_keys += [] if keys is None else read_keys(keys)
    embedder = model.embedder(recipe, whole=method is not None)
    limits = Limits(requests=max_requests, texts=max_texts)
    settings = Settings(limits, batching, method, data=data, read_only=read_only, mcp_write=mcp_write)
    app = create_app(
        embedder,
        folders,
        settings=settings,
        api_keys=api_keys,
        allowed_hosts=answered(host, allowed_host or [], keyed=bool(api_keys)),
        cors_origins=cors_origin or [],
    )
    if host not in ("127.0.0.1", "localhost", "::1") and not host.startswith("unix:") and not api_keys:
        sys.stderr.write(
            f"tp-retrieval: {host} can be reached by others, and {KEYS} holds no key: anyone may use this who asks for "
            "localhost, or for a name given with --host or --allowed-host\n"
        )
    listen(
        app,
        host,
        port,
        lambda address: sys.stderr.write(f"tp-retrieval: serving at {address}\n"),
        graceful_timeout=graceful_timeout,
    )


def _log_requests() -> None:
    logger = logging.getLogger("tp_retrieval.access")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('{"time": "%(asctime)s", "request": %(message)s}', "%Y-%m-%dT%H:%M:%S%z"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


@with_model_options
def mcp(
    indexes: Annotated[
        list[Path], typer.Argument(help="Folders of indexes to search, named by the folder's name or NAME=FOLDER.")
    ],
    write: Annotated[bool, typer.Option("--write", help="Let the client add and delete documents.")] = False,
    namespace: Annotated[
        str | None, typer.Option(help="Confine the client to this namespace; by default it may name any.")
    ] = None,
    loading: LoadingOptions = AS_STORED,
) -> None:
    """Let a language model's client search and read indexes, by the Model Context Protocol over stdin and stdout.

    The client starts this command, and ends it by closing stdin. A model is loaded when a search first needs it.
    """
    from tp_retrieval.integrations.mcp import Access, create_mcp, serve_stdio

    with ExitStack() as stack:
        opened = {name: stack.enter_context(loading.open_index(folder)) for name, folder in named(indexes).items()}
        serve_stdio(create_mcp(Access(opened, namespace, write, local=True)))


def answered(host: str, allowed: list[str], *, keyed: bool) -> list[str]:
    """Return the names a server answers to besides localhost: those allowed, and the one it listens at.

    Nothing is any name with keys, and none without.
    """
    if host in EVERYWHERE or host.startswith("unix:") or (keyed and not allowed):
        return allowed
    return [*allowed, host]


def named(paths: list[Path]) -> dict[str, Path]:
    """Return folders by the name they are served under."""
    folders: dict[str, Path] = {}
    for path in paths:
        name, separator, folder = str(path).partition("=")
        name, source = (name, Path(folder)) if separator else (path.resolve().name, path)
        if name in folders:
            raise tp_retrieval.InputError(
                f"{path}: the name {name!r} is taken by {folders[name]}; give it another as NAME=FOLDER"
            )
        folders[name] = source
    return folders
