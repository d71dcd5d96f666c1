"""`tp-retrieval info`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.output import Json, print_fields, print_json


def info(
    index: Annotated[Path, typer.Argument(help="Folder of the index.")],
    as_json: Json = False,
) -> None:
    """Show what an index holds and which model and recipe made it."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        found = asdict(opened.info())
    if as_json:
        print_json(found)
    else:
        print_fields(found)
