"""`tp-retrieval evaluate sts | retrieval | classification`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tp_retrieval.cli.output import (
    DOCUMENT_TOKENS,
    DocumentTokens,
    Json,
    Model,
    RecipeOption,
    hint_unmeasured,
    print_json,
    print_rows,
)
from tp_retrieval.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs
    from tp_retrieval.evaluation.metrics import Estimate
    from tp_retrieval.types import TextEmbedder

Against = Annotated[
    list[str] | None, typer.Option(help="Name or folder of a sentence-transformers model to compare with; repeatable.")
]
Files = Annotated[list[Path], typer.Argument(help="Tables with the columns score, sentence1, sentence2, maybe subset.")]
Folders = Annotated[list[Path], typer.Argument(help="Folders with corpus.jsonl, queries.jsonl and qrels.tsv.")]

Named = TypeVar("Named", "StsPairs", "RetrievalSet")

app = typer.Typer(help="Measure a model and a recipe on labelled data.", no_args_is_help=True)


@app.command()
def sts(
    files: Files, model: Model = None, recipe: RecipeOption = None, against: Against = None, as_json: Json = False
) -> None:
    """Correlate the cosines of sentence pairs with what people said (Spearman, over all pairs and for each subset)."""
    require_evaluation()
    from tp_retrieval.evaluation.datasets import read_sts
    from tp_retrieval.evaluation.evaluate import evaluate_sts

    datasets = named_apart([read_sts(file) for file in files])
    found: dict[str, dict[str, Any]] = {dataset.name: {} for dataset in datasets}
    for name, embedder in _embedders(model, recipe, "sts", against):
        for dataset in datasets:
            scores = evaluate_sts(embedder, dataset)
            subsets = {subset: as_record(value) for subset, value in scores.subsets.items()}
            found[dataset.name][name] = {"spearman": as_record(scores.spearman), "subsets": subsets}
    if as_json:
        print_json({"task": "sts", "metric": "spearman", "datasets": found})
        return
    rows = [
        (
            dataset,
            name,
            figure(scores["spearman"]),
            "  ".join(f"{s} {v['value']:.1f}" for s, v in scores["subsets"].items()),
        )
        for dataset, by_name in found.items()
        for name, scores in by_name.items()
    ]
    print_rows(("dataset", "embedder", "Spearman [95%]", "subsets"), rows)


@app.command()
def retrieval(
    folders: Folders,
    model: Model = None,
    recipe: RecipeOption = None,
    against: Against = None,
    document_tokens: DocumentTokens = DOCUMENT_TOKENS,
    dense_weight: Annotated[float | None, typer.Option(help="Share of the dense score in hybrid search.")] = None,
    as_json: Json = False,
) -> None:
    """Search by words (BM25), by vectors and by both, and score what is found."""
    require_evaluation()
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.datasets import read_retrieval
    from tp_retrieval.evaluation.evaluate import cut, evaluate_retrieval

    datasets = named_apart([read_retrieval(folder) for folder in folders])
    options = {} if dense_weight is None else {"dense_weight": dense_weight}
    found: dict[str, dict[str, Any]] = {}
    for name, embedder in _embedders(model, recipe, "retrieval", against):
        if isinstance(embedder, Embedder):
            datasets = [cut(dataset, embedder, document_tokens) for dataset in datasets]
        for dataset in datasets:
            scores = evaluate_retrieval(embedder, dataset, show_progress=sys.stderr.isatty(), **options)
            ways = {
                way: {metric: as_record(scores.estimate(way, metric)) for metric in values}
                for way, values in scores.values.items()
            }
            ways["gain"] = {"ndcg@10": as_record(scores.gain("hybrid", "bm25", "ndcg@10"))}
            if isinstance(embedder, Embedder):
                found[dataset.name] = {"embedder": name, "queries": len(dataset.queries), **ways, "against": {}}
            else:
                found[dataset.name]["against"][name] = {way: ways[way] for way in ("dense", "hybrid")}
    if as_json:
        print_json({"task": "retrieval", "document_tokens": document_tokens, "datasets": found})
        return
    print_rows(("dataset", "search", "nDCG@10 [95%]", "recall@10", "recall@100", "MRR@10", "MAP@100"), _lines(found))
    for name, one in found.items():
        gain = one["gain"]["ndcg@10"]
        typer.echo(
            f"{name}: hybrid over BM25 {gain['value']:+.1f} nDCG@10, 95% from {gain['low']:+.1f} to {gain['high']:+.1f}"
        )


@app.command()
def classification(
    train: Annotated[Path, typer.Argument(help="Table of label and text to fit a probe on.")],
    test: Annotated[Path, typer.Argument(help="Table of label and text to test it on.")],
    model: Model = None,
    recipe: RecipeOption = None,
    against: Against = None,
    as_json: Json = False,
) -> None:
    """Fit a logistic regression on vectors and test it; cluster the test texts (V-measure)."""
    require_evaluation()
    from tp_retrieval.evaluation.datasets import read_labelled
    from tp_retrieval.evaluation.evaluate import evaluate_classification

    sets = read_labelled(train), read_labelled(test)
    found = {}
    for name, embedder in _embedders(model, recipe, "sts", against):
        scores = evaluate_classification(embedder, *sets)
        found[name] = {"accuracy": as_record(scores.accuracy), "v_measure": as_record(scores.v_measure)}
    if as_json:
        print_json({"task": "classification", "datasets": {sets[1].name: found}})
        return
    rows = [(sets[1].name, name, figure(one["accuracy"]), figure(one["v_measure"])) for name, one in found.items()]
    print_rows(("dataset", "embedder", "accuracy [95%]", "V-measure [95%]"), rows)


def require_evaluation() -> None:
    """Raise `OptionalDependencyError` if the extra `eval` is not installed."""
    try:
        import ir_measures  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise OptionalDependencyError(error.name or "scikit-learn", "eval") from error


def named_apart(datasets: list[Named]) -> list[Named]:
    """Return sets of data as they are; raise `InputError` if two have one name, by which results are told apart."""
    names = [dataset.name for dataset in datasets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sets of data have the name {name!r}; rename one, or measure them apart")
    return datasets


def as_record(estimate: Estimate) -> dict[str, float]:
    """Return an estimate for JSON, with two digits behind the point."""
    return {name: round(value, 2) for name, value in asdict(estimate).items()}


def figure(record: dict[str, float]) -> str:
    """Return an estimate as text."""
    return f"{record['value']:.1f} [{record['low']:.1f}, {record['high']:.1f}]"


def _embedders(
    model: str | None, recipe: str | None, default: str, against: Sequence[str] | None
) -> Iterator[tuple[str, TextEmbedder]]:
    from tp_retrieval import Embedder
    from tp_retrieval.evaluation.baseline import TrainedEmbedder

    embedder = Embedder.from_pretrained(model, recipe=recipe or default)
    if recipe is None:
        hint_unmeasured(default, embedder.backbone.name)
    yield f"{Path(embedder.backbone.name).name}, {Path(recipe or default).stem}", embedder
    for name in against or []:
        yield name, TrainedEmbedder(name)


def _lines(found: dict[str, dict[str, Any]]) -> Iterator[Sequence[str]]:
    for dataset, one in found.items():
        ways = {way: one[way] for way in ("bm25", "dense", "hybrid")}
        short = [Path(name).name for name in one["against"]]
        for name, trained in one["against"].items():
            label = name if short.count(Path(name).name) > 1 else Path(name).name
            ways |= {f"{way}, {label}": metrics for way, metrics in trained.items()}
        for way, metrics in ways.items():
            first, *others = metrics.values()
            yield dataset, way, figure(first), *(f"{other['value']:.1f}" for other in others)
