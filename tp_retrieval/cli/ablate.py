"""`tp-retrieval ablate sts | retrieval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import tp_retrieval
from tp_retrieval.cli.evaluate import Files, Folders, as_record, distinct, figure, require_evaluation
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import DOCUMENT_TOKENS, DocumentTokens, Json, print_json, print_rows
from tp_retrieval.evaluation.datasets import read_retrieval, read_sts

if TYPE_CHECKING:
    from tp_retrieval.evaluation.ablate import AblationRow
    from tp_retrieval.evaluation.objectives.objective import Objective
    from tp_retrieval.evaluation.tuning.prompt_candidates import Task

Scope = Annotated[str, typer.Option(help="Blocks before which the slot is rewritten: start..stop, stop excluded.")]
Items = Annotated[
    int | None,
    typer.Option(min=6, help="Number of random pairs or queries of each set; by default all."),
]
Map = Annotated[str, typer.Option("--map", help="none, center, abtt:K, whiten:D or within:K, fitted on the texts.")]

app = typer.Typer(help="Measure the gain of each ingredient: prepending, exit, prompt, readout.", no_args_is_help=True)


@app.command()
@with_model_options
def sts(
    files: Files,
    model: ModelOptions = DEFAULT_MODEL,
    scope: Scope = "1..2",
    map_: Map = "none",
    items: Items = None,
    as_json: Json = False,
) -> None:
    """Compare prompts by Spearman's correlation on sentence pairs."""
    require_evaluation()
    from tp_retrieval.evaluation.objectives.sts import StsObjective

    datasets = distinct([read_sts(file) for file in files])
    if items is not None:
        datasets = [StsObjective(dataset, folded=False).sample(items).dataset for dataset in datasets]
    embedder = model.embedder("sts")
    _run(embedder, [StsObjective(dataset) for dataset in datasets], "sts", scope, map_, as_json)


@app.command()
@with_model_options
def retrieval(
    folders: Folders,
    model: ModelOptions = DEFAULT_MODEL,
    scope: Scope = "1..2",
    map_: Map = "whiten:256",
    document_tokens: DocumentTokens = DOCUMENT_TOKENS,
    items: Items = None,
    as_json: Json = False,
) -> None:
    """Compare prompts by nDCG@10 of their vectors alone."""
    require_evaluation()
    from tp_retrieval.evaluation.evaluate import cut
    from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective

    datasets = distinct([read_retrieval(folder) for folder in folders])
    if items is not None:
        datasets = [RetrievalObjective(dataset, folded=False).sample(items).dataset for dataset in datasets]
    embedder = model.embedder("retrieval")
    objectives = [RetrievalObjective(cut(dataset, embedder, document_tokens), dense_weights=(1.0,)) for dataset in datasets]
    _run(embedder, objectives, "retrieval", scope, map_, as_json)


def _run(
    embedder: tp_retrieval.Embedder, objectives: Sequence[Objective], task: Task, scope: str, map_: str, as_json: bool
) -> None:
    from tp_retrieval.evaluation.ablate import ablate

    start, _, stop = scope.partition("..")
    if not (start.isdigit() and stop.isdigit()):
        raise tp_retrieval.InputError(f"--scope: {scope!r} must be start..stop, such as 1..2")
    model = Path(embedder.provenance.model).name
    datasets = {}
    for objective in objectives:
        options: dict[str, Any] = {"postprocess": map_, "show_progress": sys.stderr.isatty()}
        rows = ablate(embedder, objective, task, scope=(int(start), int(stop)), **options)
        datasets[next(iter(objective.sets))] = [_record(row) for row in rows]
    if as_json:
        print_json({"task": task, "model": model, "scope": scope, "map": map_, "datasets": datasets})
        return
    header = ("dataset", "arm", "exit", "score [95%]", "over the first [95%]", "over no prepending [95%]")
    lines = [
        (
            name,
            row["arm"],
            f"{row['exit']}{' (best)' if row['chosen'] else ''}",
            *("" if row[column] is None else figure(row[column]) for column in ("score", "gain", "prepending")),
        )
        for name, records in datasets.items()
        for row in records
    ]
    print_rows(header, lines)


def _record(row: AblationRow) -> dict[str, Any]:
    added = None if row.prepending is None else as_record(row.prepending)
    return asdict(row) | {"score": as_record(row.score), "gain": as_record(row.gain), "prepending": added}
