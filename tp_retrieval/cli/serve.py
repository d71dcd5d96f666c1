"""`tp-retrieval serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import RecipeOption

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
    graceful_timeout: Annotated[int, typer.Option(min=1, help="Seconds to answer what is open when told to end.")] = 60,
) -> None:
    """Serve embeddings, reranking and search over HTTP; the page at / searches.

    API keys, if there should be any, are in the environment variable TP_RETRIEVAL_API_KEYS, separated by commas.
    """
    try:
        from tp_retrieval.integrations.server import Limits, Settings, create_app, listen
    except ImportError as error:
        raise tp_retrieval.OptionalDependencyError(error.name or "fastapi", "server") from error

    folders = named(indexes or [])
    method = None if rerank == "none" else rerank
    keys = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    embedder = model.embedder(recipe, whole=method is not None)
    settings = Settings(Limits(requests=max_requests, texts=max_texts), batching, method)
    app = create_app(
        embedder,
        folders,
        settings=settings,
        api_keys=keys,
        allowed_hosts=answered(host, allowed_host or [], keyed=bool(keys)),
    )
    if host not in ("127.0.0.1", "localhost", "::1") and not host.startswith("unix:") and not keys:
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
