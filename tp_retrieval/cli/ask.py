"""`tp-retrieval ask`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
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
    parsed_expand,
    parsed_object,
    print_json,
)
from tp_retrieval.cli.search import record_of, reranker_of, trail_of

if TYPE_CHECKING:
    from tp_retrieval.answering.answerer import Answer


@with_model_options
def ask(
    index: IndexFolder,
    question: Annotated[str, typer.Argument(help="Question to answer from the documents.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of hits to read.")] = 5,
    where: Where = None,
    namespace: Namespace = "",
    expand: ExpandOption = None,
    rerank: Annotated[Method | None, typer.Option(help="Rerank the best hits first, by this method.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in the model's tokens.")] = 256,
    context: Annotated[int | None, typer.Option(min=128, help="Tokens of passages and answer together.")] = None,
    min_evidence: Annotated[
        float | None,
        typer.Option(help="Refuse where no hit takes away so much of the question's surprise, 0 to 1; -inf never refuses."),
    ] = None,
    loading: LoadingOptions = AS_STORED,
    as_json: Json = False,
) -> None:
    """Answer a question in sentences that cite the documents they come from, by the model that indexed them.

    The words are as good as the model: a small one writes poor sentences, and finds the same passages.
    """
    from tp_retrieval.answering.answerer import CONTEXT, MIN_EVIDENCE
    from tp_retrieval.answering.writer import WritingOptions

    condition = None if where is None else parsed_object(where, "--where")
    with loading.open_index(index) as opened:
        embedder = opened.embedder
        reranker = None if rerank is None else reranker_of(embedder, rerank)
        if not isinstance(embedder, tp_retrieval.Embedder):
            raise tp_retrieval.InputError(f"{index}: its vectors were made by an embedder without a language model")
        hits = opened.search(
            question, k, where=condition, namespace=namespace, rerank=reranker, expand=parsed_expand(expand)
        )
        files = opened.file_settings(namespace)
        threshold = MIN_EVIDENCE if min_evidence is None else min_evidence
        answerer = tp_retrieval.Answerer(embedder, min_evidence=threshold, context=context or CONTEXT)
        stream = answerer.stream(question, hits, WritingOptions(max_tokens=max_tokens))
        if as_json:
            print_json(_record(stream.answer))
            return
        for piece in stream:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        _show(stream.answer, None if files is None else files.root)


def _record(answer: Answer) -> dict[str, object]:
    return {
        "question": answer.question,
        "answer": answer.text,
        "refused": answer.refused,
        "evidence": answer.evidence,
        "sentences": [asdict(sentence) for sentence in answer.sentences],
        "sources": {number: hit.document.id for number, hit in answer.sources.items()},
        "hits": [record_of(hit) for hit in answer.hits],
    }


def _show(answer: Answer, root: str | None) -> None:
    """Print the hits that were read, the cited ones bright, and the sentences that no hit supports."""
    console = Console()
    if answer.refused:
        return
    console.print()
    for number, hit in enumerate(answer.hits, 1):
        cited = number in answer.sources
        console.print(Text(f"[{number}] {trail_of(hit, root)}", style="cyan" if cited else "dim"))
    if answer.unsupported:
        console.print(Text("Not found in the hits: " + " ".join(answer.unsupported), style="yellow"))
