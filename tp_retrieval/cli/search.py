"""`tp-retrieval search`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tp_retrieval.cli.output import Json, print_json, shortened

if TYPE_CHECKING:
    from tp_retrieval import Hit

_SHOWN = 500  # characters of a hit's text


class ModeName(StrEnum):
    """How to search."""

    hybrid = "hybrid"
    dense = "dense"
    lexical = "lexical"


def search(
    index: Annotated[Path, typer.Argument(help="Folder of the index.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of hits.")] = 5,
    mode: Annotated[ModeName, typer.Option(help="Fuse vectors and words, or use one of them.")] = ModeName.hybrid,
    as_json: Json = False,
) -> None:
    """Find the documents that answer a query, best first."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        hits = opened.search(query, k, mode=mode.value)
    if as_json:
        print_json({"query": query, "mode": mode.value, "hits": [_record(hit) for hit in hits]})
        return
    console = Console()
    console.print(Text(query, style="bold") + Text("" if hits else "  no hits", style="dim"))
    for hit in hits:
        _show(console, hit)


def _record(hit: Hit) -> dict[str, object]:
    document = hit.document
    found = {"id": document.id, "text": document.text, "metadata": document.metadata}
    return {"rank": hit.rank, "score": hit.score, "parts": hit.parts, **found}


def _show(console: Console, hit: Hit) -> None:
    metadata = hit.document.metadata
    headings = metadata.get("headings", [])
    trail = [shortened(str(metadata.get("path", hit.document.id)))]
    trail += [str(heading) for heading in headings] if isinstance(headings, list) else []
    parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
    console.print()
    console.print(Text(f"{hit.rank}. ", style="bold"), Text(" › ".join(trail), style="cyan"), sep="")
    console.print(Text(f"   score {hit.score:.2f} ({parts})", style="dim"))
    lines = [line for line in hit.document.text.split("\n") if any(c.isalnum() for c in line)]  # no rulers
    text = " ".join(" ".join(lines).split())
    shown = text if len(text) <= _SHOWN else text[:_SHOWN].rsplit(" ", 1)[0] + " …"
    console.print(Padding(Text(shown), (0, 0, 0, 3)))
