"""`tp-retrieval search`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

import tp_retrieval
from tp_retrieval.cli.model_options import AS_STORED, LoadingOptions, with_model_options
from tp_retrieval.cli.output import (
    ExpandOption,
    IndexFolder,
    Json,
    Method,
    Namespace,
    Where,
    document_record,
    excerpt_lines,
    hint_unknown_keys,
    parsed_expand,
    parsed_object,
    print_json,
    shortened,
)
from tp_retrieval.documents.section import position_of
from tp_retrieval.indexing.search.query import HitShape
from tp_retrieval.types import TextEmbedder

_SHORT = 3  # letters of a word that is hardly worth seeing


@with_model_options
def search(
    index: IndexFolder,
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of hits.")] = 5,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"], typer.Option(help="Fuse vectors and words, or use one of them.")
    ] = "hybrid",
    where: Where = None,
    namespace: Namespace = "",
    mmr: Annotated[float | None, typer.Option(help="Diversify hits by MMR: 1 only relevance, 0 only diversity.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits that score lower.")] = None,
    min_relevance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out hits that are less likely relevant, 0 to 1.")
    ] = None,
    expand: ExpandOption = None,
    group_by: Annotated[
        str | None, typer.Option(help="Show the best hit of each value of a metadata key, such as path.")
    ] = None,
    rerank: Annotated[
        Method | None, typer.Option(help="Rerank the best hits with the index's model, by this method.")
    ] = None,
    loading: LoadingOptions = AS_STORED,
    as_json: Json = False,
) -> None:
    """Find the documents that answer a query, best first."""
    condition = None if where is None else parsed_object(where, "--where")
    shape: HitShape = {"expand": parsed_expand(expand), "group_by": group_by, "min_relevance": min_relevance}
    with loading.open_index(index) as opened:
        reranker = None if rerank is None else reranker_of(opened.embedder, rerank)
        hits = opened.search(
            query,
            k,
            where=condition,
            namespace=namespace,
            mode=mode,
            mmr=mmr,
            min_score=min_score,
            rerank=reranker,
            **shape,
        )
        files = opened.file_settings(namespace)
        hint_unknown_keys(opened, condition, hits)
    if as_json:
        print_json({"query": query, "mode": mode, "hits": [record_of(hit) for hit in hits]})
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(Text(query, style="bold") + Text("" if hits else "  no hits", style="dim"))
    for hit in hits:
        _show(console, hit, words_of(query), None if files is None else files.root)


def reranker_of(embedder: TextEmbedder, method: Method) -> tp_retrieval.Reranker:
    """Return a reranker by the language model of an embedder; raise `InputError` if it has none."""
    from tp_retrieval.reranking.reranker import EMBEDDING_RECIPE

    if not isinstance(embedder, tp_retrieval.Embedder):
        raise tp_retrieval.InputError("--rerank: the vectors were made by an embedder without a language model")
    return tp_retrieval.Reranker(
        embedder.with_recipe(EMBEDDING_RECIPE) if method == "embedding" else embedder, method=method
    )


def record_of(hit: tp_retrieval.Hit) -> dict[str, object]:
    """Return a hit as a JSON object."""
    passage = {"passage": hit.passage} if hit.context else {}
    scores = {"rank": hit.rank, "score": hit.score, "relevance": hit.relevance, "parts": hit.parts}
    return {**scores, **document_record(hit.document), **passage}


def trail_of(hit: tp_retrieval.Hit, root: str | None = None) -> str:
    """Return where a hit stands: its file, below `root`, with line or page, or its id; and its headings."""
    metadata = hit.document.metadata
    source = str(metadata.get("path", hit.document.id))
    if root is not None and "chunks" in metadata:  # else a path of the user's own, such as an address
        source = shortened(os.path.normpath(Path(root, source)))
    headings = metadata.get("headings", [])
    trail = [f"{source}{position_of(metadata)}"]
    trail += [str(heading) for heading in headings] if isinstance(headings, list) else []
    return " › ".join(trail)


def words_of(query: str) -> list[str]:
    """Return the words of a query that are worth seeing in a hit, without their last letters where they are long."""
    words = {
        word.casefold() for word in re.findall(r"\w+", query) if len(word) > _SHORT or word.isupper() or word.isdecimal()
    }
    return sorted(word[: max(len(word) - 2, _SHORT + 1)] for word in words)


def _show(console: Console, hit: tp_retrieval.Hit, words: list[str], root: str | None) -> None:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
    console.print()
    console.print(Text(f"{hit.rank}. ", style="bold"), Text(trail_of(hit, root), style="cyan"), sep="")
    relevance = "" if hit.relevance is None else f"relevance {hit.relevance:.2f}, "
    console.print(Text(f"   {relevance}score {hit.score:.2f} ({parts})", style="dim"))
    text = Text("\n".join(hit.passage.split("\n") if hit.context else excerpt_lines(hit.passage, words)))
    if words:
        text.highlight_regex(rf"(?i)\b(?:{'|'.join(map(re.escape, words))})\w*", style="bold yellow")
    console.print(Padding(text, (0, 0, 0, 3)) if sys.stdout.isatty() else text)
