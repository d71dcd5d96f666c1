"""`tp-retrieval tune sts | retrieval`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tp_retrieval.cli.evaluate import Files, as_record, require_evaluation
from tp_retrieval.cli.output import DOCUMENT_TOKENS, DocumentTokens, Json, Model, RecipeOption, print_fields, print_json
from tp_retrieval.documents.sources import find, read
from tp_retrieval.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.datasets import RetrievalSet
    from tp_retrieval.evaluation.objectives.objective import Objective
    from tp_retrieval.evaluation.tuning.prompt_candidates import Task
    from tp_retrieval.evaluation.tuning.tuner import Comparison

Output = Annotated[Path, typer.Option(help="Recipe to write, a .json file; the report and its pictures go beside it.")]
Budget = Annotated[float, typer.Option(min=0, help="Minutes after which no other arm is begun.")]

app = typer.Typer(help="Find the recipe that suits a model and labelled data.", no_args_is_help=True)


@app.command()
def sts(
    files: Files,
    output: Output = Path("recipe.json"),
    model: Model = None,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    as_json: Json = False,
) -> None:
    """Tune for similarity of sentences; of several tables each has an equal say."""
    check_output(output, ".json")
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.datasets import read_sts
    from tp_retrieval.evaluation.objectives.multi_dataset import combined
    from tp_retrieval.evaluation.objectives.sts import StsObjective

    objective = combined([StsObjective(read_sts(file)) for file in files])
    embedder = Embedder.from_pretrained(model, recipe=recipe or "sts")
    _run(embedder, objective, "sts", output, budget, as_json)


@app.command()
def retrieval(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with corpus.jsonl, queries.jsonl and qrels.tsv, or any folders of texts.")
    ],
    output: Output = Path("recipe.json"),
    model: Model = None,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    document_tokens: DocumentTokens = DOCUMENT_TOKENS,
    as_json: Json = False,
) -> None:
    """Tune for hybrid search; texts without queries ask for their own headings or first sentences.

    Of several folders each has an equal say.
    """
    check_output(output, ".json")
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.evaluate import cut
    from tp_retrieval.evaluation.objectives.multi_dataset import combined
    from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective

    embedder = Embedder.from_pretrained(model, recipe=recipe or "retrieval")
    datasets = [dataset_of(folder, document_tokens, embedder) for folder in folders]
    objective = combined([RetrievalObjective(cut(dataset, embedder, document_tokens)) for dataset in datasets])
    _run(embedder, objective, "retrieval", output, budget, as_json)


def dataset_of(folder: Path, tokens: int, embedder: Embedder) -> RetrievalSet:
    """Read labelled data, or let a corpus or a folder of texts ask for itself."""
    from tp_retrieval.evaluation.datasets import read_retrieval, read_unlabelled, self_supervised

    if any((folder / f"queries.jsonl{end}").exists() for end in ("", ".gz")):
        return read_retrieval(folder)
    if any((folder / f"corpus.jsonl{end}").exists() for end in ("", ".gz")):
        return read_unlabelled(folder)
    from tp_retrieval.documents.chunks import chunk

    rows = []
    for document in (one for path in find([folder]) for one in chunk(read(path), tokens, embedder.count_tokens)):
        title = next(iter(document.metadata.get("headings", [])[-1:]), "")
        asks = title if title and title in document.text else ""
        rows.append((str(document.id), asks, document.text.replace(asks, "", 1) if asks else document.text))
    return self_supervised(str(folder), rows)


def check_output(output: Path, suffix: str) -> None:
    """Raise an error before anything is measured if the extra `eval` is missing or the output can't be written."""
    require_evaluation()
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OptionalDependencyError("matplotlib", "eval") from error
    if output.suffix != suffix:
        raise InputError(f"--output: {output} must end in {suffix}")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--output: there is no folder {output.parent}")
    for place, fits in ((output, not output.is_dir()), (folder, os.access(folder, os.W_OK))):
        if not fits:
            raise InputError(f"--output: {place} can't be written")


def _run(embedder: Embedder, objective: Objective, task: Task, output: Path, budget: float, as_json: bool) -> None:
    from tp_retrieval.evaluation.report import write
    from tp_retrieval.evaluation.tuning.tuner import Tuner

    log = output.with_suffix(".arms")
    if log.is_file():
        raise InputError(f"--output: {log} must be a folder, to keep what every arm reached")
    tuned = Tuner(
        embedder,
        objective,
        task,
        folder=log,
        budget_minutes=budget,
        show_progress=sys.stderr.isatty(),
        on_progress=lambda line: sys.stderr.write(f"tp-retrieval: {line}\n"),
    ).run()
    what = "Similarity" if task == "sts" else "Search"
    files = write(tuned, output, f"{what} on {' and '.join(objective.sets)}, {Path(embedder.provenance.model).name}")
    report = {
        "recipe": str(output),
        **_record(tuned.together, tuned.kept_start),
        "sets": {name: _record(one, tuned.kept_start) for name, one in tuned.sets.items()},
        "held_out": tuned.held_out,
        "chosen_by": tuned.chosen_by,
        "kept_start": tuned.kept_start,
        "arms": len(tuned.results),
        "minutes": round(tuned.minutes, 1),
        "files": [str(file) for file in files],
    }
    if as_json:
        print_json(report)
        return
    together = tuned.together
    unsure = "" if together.gain.sure else ", which may be chance"
    each = {f"  on {name}": f"{one.score}, before {one.start}, gain {one.gain}" for name, one in tuned.sets.items()}
    fields = {
        "recipe": str(output) + (" (unchanged: nothing scored higher)" if tuned.kept_start else ""),
        "score": f"{tuned.score}, on {tuned.held_out} items that were held out",
        "before": str(together.start),
        "gain": f"{together.gain}" + (", of the best that was found" if tuned.kept_start else unsure),
        **(each if len(each) > 1 else {}),
        "report": str(output.with_suffix(".html")),
        "tried": f"{len(tuned.results)} arms in {tuned.minutes:.0f} minutes; kept in {log}",
    }
    print_fields(fields)


def _record(one: Comparison, kept_start: bool) -> dict[str, object]:
    """Return what the recipe scores, what the first one did, and what the best one found gains, taken or not."""
    score = one.start if kept_start else one.score
    return {"score": as_record(score), "before": as_record(one.start), "gain": as_record(one.gain)}
