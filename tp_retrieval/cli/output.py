"""The output of commands: one JSON document or readable text on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import tp_retrieval
from tp_retrieval.indexing.search.filters import keys_of

_EXCERPT = 500  # characters of a text that are shown
_KEYS = 20  # of the metadata that are named in a hint
_LINES = 8  # lines of a text that are shown
_WIDE = 240  # characters of a table's line without a terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Kind = Annotated[str, typer.Option(help="auto, flat, scan, hnsw, ivf, ivf-sq8, ivf-pq or a FAISS factory string.")]
RecipeOption = Annotated[str | None, typer.Option(help="Name or JSON file of a recipe; by default that of the task.")]
IndexFolder = Annotated[Path, typer.Argument(help="Folder of the index.")]
Where = Annotated[str | None, typer.Option(help='Only documents whose metadata fit, as JSON: \'{"year": {"$gte": 2020}}\'')]
Namespace = Annotated[str, typer.Option(help="Only documents of this namespace; by default those of none.")]
DocumentTokens = Annotated[int, typer.Option(min=1, help="Cut documents after so many of the model's tokens.")]
ExpandOption = Annotated[
    str | None, typer.Option("--expand", help="Show what stands around a hit: N chunks before and after, or `section`.")
]
Method = Literal["query-likelihood", "yes-no", "choice", "embedding"]
"""How a reranker judges a document."""
DOCUMENT_TOKENS = 256
"""The default length of a document, that of an index's chunks."""


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=_readable) + "\n")


def _readable(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def document_record(document: tp_retrieval.Document) -> dict[str, Any]:
    """Return a document as a JSON object."""
    return {"id": document.id, "text": document.text, "metadata": dict(document.metadata)}


def parsed_expand(text: str | None) -> int | Literal["section"] | None:
    """Return what `--expand` says; raise `InputError` for anything but a number or `section`."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    if text != "section":
        raise tp_retrieval.InputError(f"--expand: {text!r} must be a number of chunks or section")
    return "section"


def parsed_object(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object that an option holds; raise `InputError` naming the option for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise tp_retrieval.InputError(f"{option}: no JSON ({error}); write it like '{{\"year\": 2020}}'") from error
    if not isinstance(value, dict):
        raise tp_retrieval.InputError(f"{option}: expected a JSON object, got {text[:50]}")
    return value


def print_report(fields: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values as JSON, or as a table without borders."""
    if as_json:
        print_json(fields)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    Console().print(table)


def check_output(output: Path, suffix: str) -> None:
    """Raise `InputError` before any work is done if a file can't be written or has another suffix."""
    if output.suffix != suffix:
        raise tp_retrieval.InputError(f"--output: {output} must end in {suffix}")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise tp_retrieval.InputError(f"--output: there is no folder {output.parent}")
    for path, writable in ((output, not output.is_dir()), (folder, os.access(folder, os.W_OK))):
        if not writable:
            raise tp_retrieval.InputError(f"--output: {path} can't be written")


def hint_unknown_keys(index: tp_retrieval.Index, where: Mapping[str, Any] | None, results: object) -> None:
    """Name on stderr the keys of a filter that no document has, where it kept nothing."""
    if where is None or results:
        return
    keys = index.metadata_keys()
    unknown = sorted(keys_of(where) - {*keys})
    if unknown:
        there_are = f"; there are {', '.join(keys[:_KEYS])}" if keys else ""
        sys.stderr.write(f"tp-retrieval: --where: no document has {', '.join(map(repr, unknown))}{there_are}\n")


def hint_unmeasured(name: str, model: str) -> None:
    """Warn on stderr that a default recipe was not measured for a model, and name the command that finds one."""
    if not tp_retrieval.Recipe.is_measured(name, model):
        task = "sts FILE" if name == "sts" else "retrieval FOLDER"
        sys.stderr.write(
            f"tp-retrieval: the recipe `{name}` was not measured for {Path(model).name}; "
            f"`tp-retrieval tune {task}` finds the one that suits it and your data\n"
        )


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a header."""
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def excerpt(text: str, length: int = _EXCERPT) -> str:
    """Return the beginning of a text on one line, without rulers."""
    lines = [line for line in text.split("\n") if any(c.isalnum() for c in line)]
    return _cut(" ".join(" ".join(lines).split()), length)


def excerpt_lines(text: str, words: Collection[str]) -> list[str]:
    """Return the lines of a text in which most of some words are first, as they stand but for empty ones."""
    lines = [line.rstrip() for line in text.expandtabs(4).split("\n") if any(c.isalnum() for c in line)]
    matches = [{word for word in words if word in line.casefold()} for line in lines]
    counts = [len(set().union(*matches[i : i + _LINES])) for i in range(len(lines))]
    first = counts.index(max(counts)) if counts else 0
    first = min(first, max(len(lines) - _LINES, 0))
    shown, room = [], _EXCERPT
    for line in lines[first : first + _LINES]:
        if room <= 0:
            break
        shown.append(_cut(line, room))
        room -= len(line)
    indent = min((len(line) - len(line.lstrip()) for line in shown), default=0)
    return [line[indent:] for line in shown]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0] + " …"


def shortened(path: str) -> str:
    """Return a path relative to the current folder if it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
