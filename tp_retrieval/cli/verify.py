"""`tp-retrieval verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.output import Json, print_json


def verify(
    index: Annotated[Path, typer.Argument(help="Folder of the index.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again what can be made; damaged documents are removed and named.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every record, the full text, the facts and the vectors of an index. Exits 1 if something is wrong."""
    from tp_retrieval.indexing.verify import verify as check

    found = check(index, repair=repair)
    if as_json:
        print_json(asdict(found) | {"ok": found.ok})
    else:
        for problem in found.problems:
            sys.stdout.write(f"{'left' if problem in found.left else 'repaired'}: {problem}\n")
        sys.stdout.write(f"{found.documents} documents, {len(found.problems)} problems, {len(found.left)} left\n")
    if not found.ok:
        raise typer.Exit(1)
