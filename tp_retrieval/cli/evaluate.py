"""`tp-retrieval evaluate sts | retrieval | classification`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import (
    DOCUMENT_TOKENS,
    DocumentTokens,
    Json,
    Method,
    RecipeOption,
    hint_unmeasured,
    print_json,
    print_rows,
)
from tp_retrieval.cli.search import reranker_of
from tp_retrieval.embedding.recipe import DEFAULT_RECIPE
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs, read_labelled, read_retrieval, read_sts

if TYPE_CHECKING:
    from tp_retrieval.evaluation.evaluate import RetrievalScores
    from tp_retrieval.evaluation.metrics import Estimate
    from tp_retrieval.indexing.search.query import SearchOptions
    from tp_retrieval.types import TextEmbedder

Against = Annotated[
    list[str] | None, typer.Option(help="Name or folder of a sentence-transformers model to compare with; repeatable.")
]
Files = Annotated[list[Path], typer.Argument(help="Tables with the columns score, sentence1, sentence2, maybe subset.")]
Folders = Annotated[list[Path], typer.Argument(help="Folders with corpus.jsonl, queries.jsonl and qrels.tsv.")]

_WAYS = ("bm25", "dense", "hybrid", "reranked")

Named = TypeVar("Named", "StsPairs", "RetrievalSet")

app = typer.Typer(help="Measure a model and a recipe on labelled data.", no_args_is_help=True)


@app.command()
@with_model_options
def sts(
    files: Files,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    against: Against = None,
    as_json: Json = False,
) -> None:
    """Correlate the cosines of sentence pairs with gold scores (Spearman, over all pairs and for each subset)."""
    require_evaluation()
    from tp_retrieval.evaluation.evaluate import evaluate_sts

    datasets = distinct([read_sts(file) for file in files])
    results: dict[str, dict[str, Any]] = {dataset.name: {} for dataset in datasets}
    for name, embedder in _embedders(model, recipe, "sts", against):
        for dataset in datasets:
            scores = evaluate_sts(embedder, dataset)
            subsets = {subset: as_record(value) for subset, value in scores.subsets.items()}
            results[dataset.name][name] = {"spearman": as_record(scores.spearman), "subsets": subsets}
    if as_json:
        print_json({"task": "sts", "metric": "spearman", "datasets": results})
        return
    rows = [
        (
            dataset,
            name,
            figure(scores["spearman"]),
            "  ".join(f"{s} {v['value']:.1f}" for s, v in scores["subsets"].items()),
        )
        for dataset, by_name in results.items()
        for name, scores in by_name.items()
    ]
    print_rows(("dataset", "embedder", "Spearman [95%]", "subsets"), rows)


@app.command()
@with_model_options
def retrieval(
    folders: Folders,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    against: Against = None,
    document_tokens: DocumentTokens = DOCUMENT_TOKENS,
    dense_weight: Annotated[float | None, typer.Option(help="Share of the dense score in hybrid search.")] = None,
    rerank: Annotated[
        Method | None, typer.Option(help="Also rerank the hybrid search's best hits with the model, by this method.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search by words (BM25), by vectors and by both, perhaps reranked, and score the hits."""
    require_evaluation()
    from tp_retrieval.evaluation.evaluate import cut, evaluate_retrieval

    datasets = distinct([read_retrieval(folder) for folder in folders])
    options: SearchOptions = {} if dense_weight is None else {"dense_weight": dense_weight}
    results: dict[str, dict[str, Any]] = {}
    for name, embedder in _embedders(model, recipe, DEFAULT_RECIPE, against):
        if isinstance(embedder, tp_retrieval.Embedder):
            datasets = [cut(dataset, embedder, document_tokens) for dataset in datasets]
        is_ours = isinstance(embedder, tp_retrieval.Embedder)
        reranker = reranker_of(embedder, rerank) if rerank is not None and is_ours else None
        for dataset in datasets:
            scores = evaluate_retrieval(embedder, dataset, reranker=reranker, show_progress=sys.stderr.isatty(), **options)
            ways = _ways(scores)
            if is_ours:
                results[dataset.name] = {"embedder": name, "queries": len(dataset.queries), **ways, "against": {}}
            else:
                results[dataset.name]["against"][name] = {way: ways[way] for way in ("dense", "hybrid")}
    if as_json:
        print_json({"task": "retrieval", "document_tokens": document_tokens, "datasets": results})
        return
    print_rows(("dataset", "search", "nDCG@10 [95%]", "recall@10", "recall@100", "MRR@10", "MAP@100"), _lines(results))
    for name, result in results.items():
        gain = result["gain"]["ndcg@10"]
        typer.echo(
            f"{name}: hybrid over BM25 {gain['value']:+.1f} nDCG@10, 95% from {gain['low']:+.1f} to {gain['high']:+.1f}"
        )
        if "rerank_gain" in result:
            gain = result["rerank_gain"]["ndcg@10"]
            typer.echo(
                f"{name}: reranked over hybrid {gain['value']:+.1f}, 95% from {gain['low']:+.1f} to {gain['high']:+.1f}"
            )


@app.command()
@with_model_options
def classification(
    train: Annotated[Path, typer.Argument(help="Table of label and text to fit a probe on.")],
    test: Annotated[Path, typer.Argument(help="Table of label and text to test it on.")],
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    against: Against = None,
    as_json: Json = False,
) -> None:
    """Fit a logistic regression on vectors and test it; cluster the test texts (V-measure)."""
    require_evaluation()
    from tp_retrieval.evaluation.evaluate import evaluate_classification

    sets = read_labelled(train), read_labelled(test)
    results = {}
    for name, embedder in _embedders(model, recipe, "sts", against):
        scores = evaluate_classification(embedder, *sets)
        results[name] = {"accuracy": as_record(scores.accuracy), "v_measure": as_record(scores.v_measure)}
    if as_json:
        print_json({"task": "classification", "datasets": {sets[1].name: results}})
        return
    rows = [(sets[1].name, name, *(figure(estimate) for estimate in scores.values())) for name, scores in results.items()]
    print_rows(("dataset", "embedder", "accuracy [95%]", "V-measure [95%]"), rows)


def require_evaluation(*others: str) -> None:
    """Raise `OptionalDependencyError` if a package of the extra `eval` is missing."""
    for name in ("ir_measures", "scipy", "sklearn", *others):
        try:
            import_module(name)
        except ImportError as error:
            raise tp_retrieval.OptionalDependencyError(error.name or name, "eval") from error


def distinct(datasets: list[Named]) -> list[Named]:
    """Return datasets unchanged; raise `InputError` if two have the same name, which is the key of their results."""
    names = [dataset.name for dataset in datasets]
    for name in names:
        if names.count(name) > 1:
            raise tp_retrieval.InputError(f"two sets of data have the name {name!r}; rename one, or measure them apart")
    return datasets


def as_record(estimate: Estimate) -> dict[str, float]:
    """Return an estimate for JSON, rounded to two decimals."""
    return {name: round(value, 2) for name, value in asdict(estimate).items()}


def figure(record: dict[str, float]) -> str:
    """Return an estimate as text."""
    return f"{record['value']:.1f} [{record['low']:.1f}, {record['high']:.1f}]"


def _embedders(
    model: ModelOptions, recipe: str | None, default: str, against: Sequence[str] | None
) -> Iterator[tuple[str, TextEmbedder]]:
    from tp_retrieval.evaluation.baseline import TrainedEmbedder

    embedder = model.embedder(recipe or default)
    if recipe is None:
        hint_unmeasured(default, embedder.backbone.name)
    yield f"{Path(embedder.backbone.name).name}, {Path(recipe or default).stem}", embedder
    for name in against or []:
        yield name, TrainedEmbedder(name)


def _ways(scores: RetrievalScores) -> dict[str, dict[str, dict[str, float]]]:
    """Return every metric of every way of searching, and the gains of hybrid search over BM25 and of reranking over it."""
    ways = {
        way: {metric: as_record(scores.estimate(way, metric)) for metric in values} for way, values in scores.values.items()
    }
    gains = {"gain": {"ndcg@10": as_record(scores.gain("hybrid", "bm25", "ndcg@10"))}}
    if "reranked" in ways:
        gains["rerank_gain"] = {"ndcg@10": as_record(scores.gain("reranked", "hybrid", "ndcg@10"))}
    return ways | gains


def _lines(results: dict[str, dict[str, Any]]) -> Iterator[Sequence[str]]:
    for dataset, result in results.items():
        ways = {way: result[way] for way in _WAYS if way in result}
        short = [Path(name).name for name in result["against"]]
        for name, trained in result["against"].items():
            label = name if short.count(Path(name).name) > 1 else Path(name).name
            ways |= {f"{way}, {label}": metrics for way, metrics in trained.items()}
        for way, metrics in ways.items():
            first, *others = metrics.values()
            yield dataset, way, figure(first), *(f"{other['value']:.1f}" for other in others)
