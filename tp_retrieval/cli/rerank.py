"""`tp-retrieval rerank`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, Method, excerpt, print_json
from tp_retrieval.documents.sources import read_texts


@with_model_options
def rerank(
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    file: Annotated[Path, typer.Argument(help='One text a line, or .jsonl with "text".')],
    method: Annotated[Method, typer.Option(help="Method of scoring.")] = "query-likelihood",
    top: Annotated[int | None, typer.Option("-n", "--top-n", min=1, help="Number of texts; by default all.")] = None,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the method embedding; by default `sts`.")] = None,
    as_json: Json = False,
) -> None:
    """Order a file's texts by how well they answer a query, best first."""
    texts = read_texts(file)

    if recipe is not None and method != "embedding":
        raise tp_retrieval.InputError("--recipe: only the method embedding follows one")
    reranker = tp_retrieval.Reranker.from_pretrained(model.model, method=method, recipe=recipe, **model.arguments)
    ranked = reranker.order(query, texts, top_n=top, show_progress=sys.stderr.isatty())
    if as_json:
        records = [
            {"rank": rank, "score": score, "line": i + 1, "text": texts[i]} for rank, (i, score) in enumerate(ranked, 1)
        ]
        print_json({"query": query, "method": method, "texts": records})
        return
    console = Console()
    console.print(Text(query, style="bold"))
    for rank, (i, score) in enumerate(ranked, 1):
        console.print(Text(f"{rank}. ", style="bold"), Text(f"text {i + 1}, score {score:.2f}", style="dim"), sep="")
        console.print(Padding(Text(excerpt(texts[i])), (0, 0, 0, 3)))
