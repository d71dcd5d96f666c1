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
    """Show what an index holds and which model and recipe made it."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        show(opened, as_json=as_json)


def show(index: Index, *, as_json: bool) -> None:
    """Print what an open index holds."""
    found = asdict(index.info())
    if as_json:
        print_json(found)
    else:
        print_fields(found)
