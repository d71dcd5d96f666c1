"""`tp-retrieval info` and `tp-retrieval duplicates`: what an index holds."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from tp_retrieval.cli.output import IndexFolder, Json, Namespace, print_json, print_report

if TYPE_CHECKING:
    from tp_retrieval.indexing.info import IndexInfo
    from tp_retrieval.indexing.storage.meta import FileSettings

_GROWN = 1.2  # from which on fitting maps anew is worth it


def info(
    index: IndexFolder,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show fingerprints, maps and tuning, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an index holds, what made it, and how it is searched."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        print_info(opened.info(), as_json=as_json, verbose=verbose)


def print_info(described: IndexInfo, *, as_json: bool, verbose: bool = False) -> None:
    """Print the description of an index: all of it as JSON or if `verbose`, otherwise what people ask for."""
    print_report(asdict(described) if as_json or verbose else summary_of(described), as_json)


def summary_of(described: IndexInfo) -> dict[str, str]:
    """Return what people ask of an index, by name."""
    recipe = described.recipe or {}
    rows = {
        "index": described.path,
        "documents": f"{described.documents:,}, {described.bytes_on_disk / 1e6:,.1f} MB on disk",
        "namespaces": _namespaces(described),
        "files": "\n".join(_files(name, files) for name, files in described.files.items()),
        "model": described.source or described.model or f"{described.fingerprint} (its vectors come from elsewhere)",
        "query": str(recipe.get("query", "")),
        "document": str(recipe.get("document", "")),
        "vectors": _vectors(described),
        "search": _search(described),
        "words": "three letters each" if described.tokenizer == "trigram" else "stemmed",
        "hints": "\n".join(_hints(described)),
    }
    return {name: value for name, value in rows.items() if value}


def _namespaces(described: IndexInfo) -> str:
    """Return the documents of each namespace, nothing if there is none with a name."""
    if not any(described.namespaces):
        return ""
    return ", ".join(f"{name or '(none)'} {count:,}" for name, count in described.namespaces.items())


def _files(namespace: str, files: FileSettings) -> str:
    patterns = [f"only {', '.join(files.include)}" if files.include else "", *(f"without {name}" for name in files.exclude)]
    place = f"{namespace}: {files.root}" if namespace else files.root
    return "; ".join([place, f"chunks of {files.chunk_tokens} tokens", *filter(None, patterns)])


def _vectors(described: IndexInfo) -> str:
    """Return where the model is read, and how its vectors are mapped."""
    views = (described.recipe or {}).get("views", [])
    read = " and ".join(f"{view.get('readout')} {_depth(view.get('exit'))}" for view in views)
    fitted = (
        f"; maps {', '.join(described.fitted)}, fitted on {described.fitted_on:,} documents" if described.fitted else ""
    )
    return f"{described.dimension} numbers" + (f" ({read})" if read else "") + fitted


def _depth(exit_: int | None) -> str:
    if exit_ is None:
        return "after all blocks"
    if exit_ == 0:
        return "of the input embeddings"
    return f"after block {exit_}" if exit_ > 0 else f"after all blocks but {-exit_}"


def _search(described: IndexInfo) -> str:
    tuning = described.tuning
    if tuning is None:
        return "exact"
    return f"{tuning.factory}, which finds at least {math.floor(100 * tuning.recall)}% of the ten nearest"


def _hints(described: IndexInfo) -> list[str]:
    hints = [*described.fallbacks]
    if described.growth is not None and described.growth > _GROWN:
        hints.append(
            f"{described.growth:.1f} times the documents that maps were fitted on: `tp-retrieval rebuild` fits anew"
        )
    if described.unread:
        hints.append(f"{described.unread} documents must be read for a map: `tp-retrieval rebuild` does")
    return hints


def duplicates(
    index: IndexFolder,
    threshold: Annotated[float, typer.Option(help="Least cosine with an earlier document.")] = 0.95,
    namespace: Namespace = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove the later document of each pair.")] = False,
    as_json: Json = False,
) -> None:
    """Find documents that nearly equal an earlier one, the most alike first; no model is loaded."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        pairs = opened.duplicates(threshold, namespace=namespace, show_progress=sys.stderr.isatty())
        documents = opened.namespaces().get(namespace, 0)
        removed = opened.delete([pair.id for pair in pairs], namespace=namespace) if delete else 0
    if as_json:
        print_json({"documents": documents, "duplicates": [asdict(pair) for pair in pairs], "removed": removed})
        return
    console = Console()
    for pair in pairs:
        console.print(Text(f"{pair.score:.3f}", style="bold"), Text(f"{pair.id}  is like  {pair.of}"), soft_wrap=True)
    console.print(Text(f"{len(pairs)} of {documents} documents, {removed} removed", style="dim"), soft_wrap=True)
