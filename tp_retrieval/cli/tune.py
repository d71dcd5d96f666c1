"""`tp-retrieval tune sts | retrieval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import tp_retrieval
from tp_retrieval.cli.evaluate import Files, as_record, require_evaluation
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import DOCUMENT_TOKENS, DocumentTokens, Json, RecipeOption, check_output, print_report
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read
from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval, read_sts, read_unlabelled, self_supervised

if TYPE_CHECKING:
    from tp_retrieval.evaluation.objectives.objective import Objective
    from tp_retrieval.evaluation.tuning.prompt_candidates import Task
    from tp_retrieval.evaluation.tuning.tuner import Comparison, FrontierPoint, Tuned

Output = Annotated[Path, typer.Option(help="Recipe to write, a .json file; the report and its pictures go beside it.")]
Budget = Annotated[float, typer.Option(min=0, help="Minutes after which no further prompt is tried.")]

app = typer.Typer(help="Find the recipe that scores highest for a model on labelled data.", no_args_is_help=True)


@app.command()
@with_model_options
def sts(
    files: Files,
    output: Output = Path("recipe.json"),
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    as_json: Json = False,
) -> None:
    """Tune for sentence similarity; several tables have equal weight."""
    require_evaluation("matplotlib")
    check_output(output, ".json")
    from tp_retrieval.evaluation.objectives.multi_dataset import combined
    from tp_retrieval.evaluation.objectives.sts import StsObjective

    objective = combined([StsObjective(read_sts(file)) for file in files])
    embedder = model.embedder(recipe or "sts")
    _run(embedder, objective, "sts", output, budget, as_json)


@app.command()
@with_model_options
def retrieval(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with corpus.jsonl, queries.jsonl and qrels.tsv, or any folders of texts.")
    ],
    output: Output = Path("recipe.json"),
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    document_tokens: DocumentTokens = DOCUMENT_TOKENS,
    as_json: Json = False,
) -> None:
    """Tune for hybrid search; for texts without queries, their headings or first sentences are the queries.

    Several folders have equal weight.
    """
    require_evaluation("matplotlib")
    check_output(output, ".json")
    from tp_retrieval.evaluation.evaluate import cut
    from tp_retrieval.evaluation.objectives.multi_dataset import combined
    from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective

    embedder = model.embedder(recipe or "retrieval")
    datasets = [dataset_of(folder, document_tokens, embedder) for folder in folders]
    objective = combined([RetrievalObjective(cut(dataset, embedder, document_tokens)) for dataset in datasets])
    _run(embedder, objective, "retrieval", output, budget, as_json)


def dataset_of(folder: Path, tokens: int, embedder: tp_retrieval.Embedder) -> RetrievalSet:
    """Read labelled data, or make queries of a corpus or a folder of texts."""
    if any((folder / f"queries.jsonl{end}").exists() for end in ("", ".gz")):
        return read_retrieval(folder)
    if any((folder / f"corpus.jsonl{end}").exists() for end in ("", ".gz")):
        return read_unlabelled(folder)
    from tp_retrieval.documents.chunks import chunk

    rows = []
    for path in find([folder]).files:
        for document in chunk(read(path), tokens, embedder.count_tokens):
            title = next(iter(document.metadata.get("headings", [])[-1:]), "")
            query = title if title in document.text else ""
            rows.append((str(document.id), query, document.text.replace(query, "", 1) if query else document.text))
    return self_supervised(str(folder), rows)


def _run(
    embedder: tp_retrieval.Embedder, objective: Objective, task: Task, output: Path, budget: float, as_json: bool
) -> None:
    from tp_retrieval.evaluation.report import write
    from tp_retrieval.evaluation.tuning.tuner import Tuner

    log = output.with_suffix(".arms")
    if log.is_file():
        raise tp_retrieval.InputError(f"--output: {log} must be a folder, to keep what every arm reached")
    tuned = Tuner(
        embedder,
        objective,
        task,
        folder=log,
        budget_minutes=budget,
        show_progress=sys.stderr.isatty(),
        on_progress=lambda line: sys.stderr.write(f"tp-retrieval: {line}\n"),
    ).run()
    title = f"{'Similarity' if task == 'sts' else 'Search'} on {' and '.join(objective.sets)}"
    files = write(tuned, output, f"{title}, {Path(embedder.provenance.model).name}")
    print_report(_report(tuned, output, files) if as_json else _summary(tuned, output, log), as_json)


def _report(tuned: Tuned, output: Path, files: Sequence[Path]) -> dict[str, object]:
    return {
        "recipe": str(output),
        **_record(tuned.together, tuned.kept_start),
        "sets": {name: _record(compared, tuned.kept_start) for name, compared in tuned.sets.items()},
        "held_out": tuned.held_out,
        "chosen_by": tuned.chosen_by,
        "kept_start": tuned.kept_start,
        "frontier": [_point(point) for point in tuned.frontier],
        "arms": len(tuned.results),
        "minutes": round(tuned.minutes, 1),
        "files": [str(file) for file in files],
    }


def _point(point: FrontierPoint) -> dict[str, object]:
    """Return a point of the frontier as a JSON object."""
    return {
        "blocks": point.blocks,
        "texts_a_second": round(point.texts_a_second, 1),
        "score": as_record(point.score),
        "below_tuned": as_record(point.below_tuned),
        "views": [view.to_dict() for view in point.recipe.views],
    }


def _record(compared: Comparison, kept_start: bool) -> dict[str, object]:
    """Return the score of the written recipe, that of the first one, and the gain of the best one, written or not."""
    score = compared.start if kept_start else compared.score
    return {"score": as_record(score), "before": as_record(compared.start), "gain": as_record(compared.gain)}


def _summary(tuned: Tuned, output: Path, log: Path) -> dict[str, str]:
    together = tuned.together
    unsure = "" if together.gain.sure else ", which may be chance"
    each = {f"  on {name}": f"{c.score}, before {c.start}, gain {c.gain}" for name, c in tuned.sets.items()}
    return {
        "recipe": str(output) + (" (unchanged: nothing scored higher)" if tuned.kept_start else ""),
        "score": f"{tuned.score}, on {tuned.held_out} items that were held out",
        "before": str(together.start),
        "gain": f"{together.gain}" + (", of the best that was found" if tuned.kept_start else unsure),
        **(each if len(each) > 1 else {}),
        "fast": f"{output.with_suffix('.fast.json')}, the cheapest that is not surely worse",
        **{f"  {p.cost}": f"{p.score}, {p.texts_a_second:.0f} documents/s" for p in tuned.frontier},
        "report": str(output.with_suffix(".html")),
        "tried": f"{len(tuned.results)} arms in {tuned.minutes:.0f} minutes; kept in {log}",
    }
