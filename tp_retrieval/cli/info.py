"""`tp-retrieval info`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tp_retrieval.cli.output import Json, print_fields, print_json

if TYPE_CHECKING:
    from tp_retrieval import Index


def info(
    index: Annotated[Path, typer.Argument(help="Folder of the index.")],
    as_json: Json = False,
) -> None:
    """Show the size, kind, model and recipe of an index."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        show(opened, as_json=as_json)


def show(index: Index, *, as_json: bool) -> None:
    """Print the description of an open index."""
    fields = asdict(index.info())
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)
