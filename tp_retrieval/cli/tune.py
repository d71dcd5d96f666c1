"""`tp-retrieval tune sts | retrieval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tp_retrieval.cli.evaluate import as_record, require_evaluation
from tp_retrieval.cli.output import DocumentTokens, Json, Model, RecipeOption, print_fields, print_json
from tp_retrieval.cli.sources import find, read
from tp_retrieval.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.arms import Task
    from tp_retrieval.evaluation.datasets import RetrievalSet
    from tp_retrieval.evaluation.objectives import Objective

Output = Annotated[Path, typer.Option(help="Recipe to write, a .json file; the report and its pictures go beside it.")]
Budget = Annotated[float, typer.Option(min=0, help="Minutes after which no other arm is begun.")]

app = typer.Typer(help="Find the recipe that suits a model and labelled data.", no_args_is_help=True)


@app.command()
def sts(
    file: Annotated[Path, typer.Argument(help="Table with the columns score, sentence1, sentence2.")],
    output: Output = Path("recipe.json"),
    model: Model = None,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    as_json: Json = False,
) -> None:
    """Tune for similarity of sentences."""
    check_output(output, ".json")
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.datasets import read_sts
    from tp_retrieval.evaluation.objectives import StsObjective

    dataset = read_sts(file)
    embedder = Embedder.from_pretrained(model, recipe=recipe or "sts")
    _run(embedder, StsObjective(dataset), "sts", output, budget, f"Similarity on {dataset.name}", as_json)


@app.command()
def retrieval(
    folder: Annotated[
        Path, typer.Argument(help="Folder with corpus.jsonl, queries.jsonl and qrels.tsv, or any folder of texts.")
    ],
    output: Output = Path("recipe.json"),
    model: Model = None,
    recipe: RecipeOption = None,
    budget: Budget = 15.0,
    document_tokens: DocumentTokens = 256,
    as_json: Json = False,
) -> None:
    """Tune for hybrid search; texts without queries ask for their own headings or first sentences."""
    check_output(output, ".json")
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.evaluate import cut
    from tp_retrieval.evaluation.objectives import RetrievalObjective

    embedder = Embedder.from_pretrained(model, recipe=recipe or "retrieval")
    dataset = dataset_of(folder, document_tokens, embedder)
    objective = RetrievalObjective(cut(dataset, embedder, document_tokens))
    _run(embedder, objective, "retrieval", output, budget, f"Search on {dataset.name}", as_json)


def dataset_of(folder: Path, tokens: int, embedder: Embedder) -> RetrievalSet:
    """Read labelled data, or let a corpus or a folder of texts ask for itself."""
    from tp_retrieval.evaluation.datasets import asking_for_itself, read_retrieval, read_unlabelled

    if any((folder / f"queries.jsonl{end}").exists() for end in ("", ".gz")):
        return read_retrieval(folder)
    if any((folder / f"corpus.jsonl{end}").exists() for end in ("", ".gz")):
        return read_unlabelled(folder)
    from tp_retrieval.cli.chunks import chunk

    rows = []
    for document in (one for path in find([folder]) for one in chunk(read(path), tokens, embedder.count_tokens)):
        title = next(iter(document.metadata.get("headings", [])[-1:]), "")
        before, there, after = document.text.partition(title)
        rows.append((str(document.id), title, before + after) if there and title else (str(document.id), "", document.text))
    return asking_for_itself(str(folder), rows)


def check_output(output: Path, suffix: str) -> None:
    """Raise an error before anything is measured if the extra `eval` is missing or the output can't be written."""
    require_evaluation()
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OptionalDependencyError("matplotlib", "eval") from error
    if output.suffix != suffix:
        raise InputError(f"--output: {output} must end in {suffix}")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output: there is no folder {output.parent}")


def _run(
    embedder: Embedder, objective: Objective, task: Task, output: Path, budget: float, title: str, as_json: bool
) -> None:
    from tp_retrieval.evaluation.report import write
    from tp_retrieval.evaluation.tune import Tuner

    kept = output.with_suffix(".arms")
    tuner = Tuner(embedder, objective, task, folder=kept, budget_minutes=budget, show_progress=sys.stderr.isatty())
    tuned = tuner.run()
    files = write(tuned, output, f"{title}, {Path(embedder.provenance.model).name}")
    report = {
        "recipe": str(output),
        "score": as_record(tuned.score),
        "before": as_record(tuned.start_score),
        "gain": as_record(tuned.gain),
        "held_out": tuned.held_out,
        "chosen_by": tuned.chosen_by,
        "kept_start": tuned.kept_start,
        "arms": len(tuned.arms),
        "minutes": round(tuned.minutes, 1),
        "files": [str(file) for file in files],
    }
    if as_json:
        print_json(report)
        return
    unsure = "" if tuned.kept_start or tuned.gain.sure else ", which may be chance"
    shown = {
        "recipe": str(output) + (" (unchanged: nothing scored higher)" if tuned.kept_start else ""),
        "score": f"{tuned.score}, on {tuned.held_out} items that no choice looked at",
        "before": str(tuned.start_score),
        "gain": f"{tuned.gain}{unsure}",
        "report": str(output.with_suffix(".html")),
        "tried": f"{len(tuned.arms)} arms in {tuned.minutes:.0f} minutes; kept in {kept}",
    }
    print_fields(shown)
