"""`tp-retrieval info` and `tp-retrieval duplicates`: what an index holds."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tp_retrieval.cli.output import IndexFolder, Json, print_json, print_report


def info(
    index: IndexFolder,
    as_json: Json = False,
) -> None:
    """Show the size, kind, model and recipe of an index."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        print_report(asdict(opened.info()), as_json)


def duplicates(
    index: IndexFolder,
    threshold: Annotated[float, typer.Option(help="Least cosine with an earlier document.")] = 0.95,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the later document of each pair.")] = False,
    as_json: Json = False,
) -> None:
    """Find documents that nearly equal an earlier one, the most alike first; no model is loaded."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        pairs = opened.duplicates(threshold, show_progress=sys.stderr.isatty())
        documents = len(opened)
        removed = opened.delete([pair.id for pair in pairs]) if delete else 0
    if as_json:
        print_json({"documents": documents, "duplicates": [asdict(pair) for pair in pairs], "removed": removed})
        return
    console = Console()
    for pair in pairs:
        console.print(Text(f"{pair.score:.3f}", style="bold"), Text(f"{pair.id}  is like  {pair.of}"), soft_wrap=True)
    console.print(Text(f"{len(pairs)} of {documents} documents, {removed} removed", style="dim"), soft_wrap=True)
