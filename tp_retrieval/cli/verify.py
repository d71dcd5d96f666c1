"""`tp-retrieval verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from tp_retrieval.cli.output import IndexFolder, Json, print_json

_CHECKED = (
    "every record has its digest; words, metadata, vectors and snapshot are those of the records; the file is whole\n"
)


def verify(
    index: IndexFolder,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rebuild derived data; remove corrupt documents and list their ids.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every record, the full text, the metadata index and the vectors of an index; exit 1 for any problem."""
    from tp_retrieval.indexing.verify import verify as check

    result = check(index, repair=repair)
    if as_json:
        print_json(asdict(result) | {"ok": result.ok})
    else:
        for problem in result.problems:
            sys.stdout.write(f"{'left' if problem in result.left else 'repaired'}: {problem}\n")
        if result.ok:
            sys.stdout.write(_CHECKED)
        sys.stdout.write(f"{result.documents} documents, {len(result.problems)} problems, {len(result.left)} left\n")
    if not result.ok:
        raise typer.Exit(1)
