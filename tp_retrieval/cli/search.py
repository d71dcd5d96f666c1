"""`tp-retrieval search`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

import tp_retrieval
from tp_retrieval.cli.model_options import AS_STORED, LoadingOptions, with_model_options
from tp_retrieval.cli.output import IndexFolder, Json, Method, Where, excerpt, parsed_object, print_json, shortened
from tp_retrieval.types import TextEmbedder


@with_model_options
def search(
    index: IndexFolder,
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of hits.")] = 5,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"], typer.Option(help="Fuse vectors and words, or use one of them.")
    ] = "hybrid",
    where: Where = None,
    mmr: Annotated[float | None, typer.Option(help="Diversify hits by MMR: 1 only relevance, 0 only diversity.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits that score lower.")] = None,
    rerank: Annotated[
        Method | None, typer.Option(help="Rerank the best hits with the index's model, by this method.")
    ] = None,
    loading: LoadingOptions = AS_STORED,
    as_json: Json = False,
) -> None:
    """Find the documents that answer a query, best first."""
    condition = None if where is None else parsed_object(where, "--where")
    with loading.open_index(index) as opened:
        reranker = None if rerank is None else reranker_of(opened.embedder, rerank)
        hits = opened.search(query, k, where=condition, mode=mode, mmr=mmr, min_score=min_score, rerank=reranker)
    if as_json:
        print_json({"query": query, "mode": mode, "hits": [record_of(hit) for hit in hits]})
        return
    console = Console()
    console.print(Text(query, style="bold") + Text("" if hits else "  no hits", style="dim"))
    for hit in hits:
        _show(console, hit)


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
    document = hit.document
    fields = {"id": document.id, "text": document.text, "metadata": document.metadata}
    return {"rank": hit.rank, "score": hit.score, "parts": hit.parts, **fields}


def trail_of(hit: tp_retrieval.Hit) -> str:
    """Return where a hit stands: its path, or its id, and its headings."""
    metadata = hit.document.metadata
    headings = metadata.get("headings", [])
    trail = [shortened(str(metadata.get("path", hit.document.id)))]
    trail += [str(heading) for heading in headings] if isinstance(headings, list) else []
    return " › ".join(trail)


def _show(console: Console, hit: tp_retrieval.Hit) -> None:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
    console.print()
    console.print(Text(f"{hit.rank}. ", style="bold"), Text(trail_of(hit), style="cyan"), sep="")
    console.print(Text(f"   score {hit.score:.2f} ({parts})", style="dim"))
    console.print(Padding(Text(excerpt(hit.document.text)), (0, 0, 0, 3)))
