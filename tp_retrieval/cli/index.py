"""`tp-retrieval index`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm.auto import tqdm

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, RecipeOption, hint_unmeasured, print_report
from tp_retrieval.documents.jsonl import read_records
from tp_retrieval.documents.sources import Source, find, read
from tp_retrieval.embedding.recipe import DEFAULT_RECIPE
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision
from tp_retrieval.indexing.storage.store import FILE

_WORTH_TELLING, _LONG = 20.0, 120.0  # seconds


@dataclass(frozen=True)
class _Report:
    index: str
    files: int
    unchanged_files: int
    added: int
    removed: int
    documents: int


@with_model_options
def index(
    into: Annotated[Path, typer.Option(help="Folder of the index; created if missing.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders: .md .rst .txt .html .jsonl")] = None,
    from_parquet: Annotated[
        Path | None, typer.Option(help="Folder that `embed-corpus` wrote: its vectors are loaded, no document is embedded.")
    ] = None,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    chunk_tokens: Annotated[int, typer.Option(min=16, help="Longest chunk, in the model's tokens.")] = 256,
    kind: Annotated[
        str | None,
        typer.Option(help="Of a new index: auto, flat, scan, hnsw, ivf, ivf-sq8, ivf-pq or a FAISS factory string."),
    ] = None,
    tokenizer: Annotated[
        Literal["words", "trigram"] | None,
        typer.Option(help="Of a new index: stemmed words, or trigrams for languages without spaces."),
    ] = None,
    raw: Annotated[
        RawPrecision | None,
        typer.Option(help="Of a new index: precision that raw vectors are stored in; float16 takes half the bytes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Index files and folders. A second run skips unchanged files and removes the documents of deleted ones."""
    if (from_parquet is None) == (not paths):
        raise tp_retrieval.InputError("give files and folders to embed, or --from-parquet, and not both")
    of_a_new_index = {"kind": kind, "tokenizer": tokenizer, "raw": raw}
    options = {name: value for name, value in of_a_new_index.items() if value is not None}
    if from_parquet is not None:
        report = _load(into, from_parquet, options)
    else:
        sources = _read(paths or [])
        folders = [path for path in paths or [] if path.is_dir()]
        report = _update(*_open(into, model, recipe, options), sources, folders, chunk_tokens)
    print_report(asdict(report), as_json)


def _read(paths: Sequence[Path]) -> list[Source]:
    """Read every file, and every line of .jsonl, so that a broken one is named before the model is loaded."""
    sources = [read(path) for path in find(paths)]
    for source in sources:
        if source.format == "jsonl":
            list(read_records(source.text, source.path))
    return sources


def _update(
    opened: tp_retrieval.Index,
    count_tokens: Callable[[str], int],
    sources: Sequence[Source],
    folders: Sequence[Path],
    chunk_tokens: int,
) -> _Report:
    from tp_retrieval.indexing.importers.files import FileImporter

    with opened:
        recipe = opened.info().recipe or {}
        importer = FileImporter(opened, count_tokens, chunk_tokens, partial(_tell_time, recipe))
        try:
            changes = importer.update(sources, folders, show_progress=sys.stderr.isatty())
        except KeyboardInterrupt:
            sys.stderr.write("tp-retrieval: interrupted; what was indexed so far is kept\n")
            raise typer.Exit(130) from None
        return _Report(str(opened.info().path), len(sources), **asdict(changes), documents=len(opened))


def _tell_time(recipe: Mapping[str, Any], chunks: int, seconds: float) -> None:
    """Write how long the other chunks will take, and name the faster recipe if that is over two minutes."""
    if seconds < _WORTH_TELLING:
        return
    about = f"{seconds:.0f} seconds" if seconds < _LONG else f"{seconds / 60:.0f} minutes"
    line = f"tp-retrieval: {chunks:,} more chunks will take about {about}"
    exits = [view.get("exit") for view in recipe.get("views", []) if view.get("sample") is None]
    if seconds >= _LONG and any(exit_ not in (0, 1) for exit_ in exits):
        line += "; --recipe retrieval-fast reads one block of the model at most, for a new index"
    sys.stderr.write(f"{line}\n")


def _load(into: Path, folder: Path, options: Mapping[str, Any]) -> _Report:
    """Add the documents and vectors of Parquet shards; a new index is made with the embedder of the shards."""
    try:
        from tp_retrieval.integrations import parquet
    except ImportError as error:
        raise tp_retrieval.OptionalDependencyError(error.name or "pyarrow", "ray") from error
    from tp_retrieval.indexing.importers.files import refit_if_grown

    files = parquet.shard_files(folder)
    first = parquet.origin_of(files[0])
    try:
        opened = tp_retrieval.Index.open(into)
    except tp_retrieval.IndexNotFoundError:
        from tp_retrieval.embedding.model.settings import EmbedderSettings

        embedder = EmbedderSettings(first.source, first.recipe, dtype=first.dtype, revision=first.revision).load()
        opened = tp_retrieval.Index.create(into, embedder, **options)
    added = 0
    with opened:
        for shard in tqdm(parquet.read_shards(folder), total=len(files), unit="shard", disable=not sys.stderr.isatty()):
            opened.add_vectors(shard.documents, shard.vectors, fingerprint=shard.made.fingerprint)
            added += len(shard.documents)
        refit_if_grown(opened, show_progress=sys.stderr.isatty())
        return _Report(str(into), len(files), 0, added, 0, len(opened))


def _open(
    into: Path, model: ModelOptions, recipe: str | None, options: Mapping[str, Any]
) -> tuple[tp_retrieval.Index, Callable[[str], int]]:
    """Open or create the index; return it with the token counter of its model."""
    try:
        opened = model.open_index(into)
    except tp_retrieval.IndexNotFoundError:
        if into.exists() and (not into.is_dir() or any(not file.name.startswith(FILE) for file in into.iterdir())):
            raise tp_retrieval.InputError(
                f"--into: {into} holds other files; give an index, an empty folder or a new one"
            ) from None
        embedder = model.embedder(recipe)
        if recipe is None:
            hint_unmeasured(DEFAULT_RECIPE, embedder.backbone.name)
        return tp_retrieval.Index.create(into, embedder, **options), embedder.count_tokens
    _check_options(opened, into, options)
    if model.model is None and recipe is None:
        if not isinstance(opened.embedder, tp_retrieval.Embedder):
            raise tp_retrieval.InputError(f"--into: {into} was made by an embedder that counts no tokens")
        return opened, opened.embedder.count_tokens
    with opened:
        info = opened.info()
    stored = None if info.recipe is None else tp_retrieval.Recipe.from_dict(info.recipe)
    embedder = replace(model, model=model.model or info.source).embedder(recipe or stored)
    if stored is not None:
        _check_maps(into, stored, embedder.recipe)
    return tp_retrieval.Index.open(into, embedder), embedder.count_tokens


def _check_options(opened: tp_retrieval.Index, into: Path, options: Mapping[str, Any]) -> None:
    """Close the index and raise `InputError` if an option differs from what the index was created with."""
    for name, value in options.items():
        stored = getattr(opened.info(), name)
        if stored != value:
            fixed = name == "tokenizer"
            remedy = "it is chosen when the index is made" if fixed else "change it with `tp-retrieval rebuild`"
            opened.close()
            raise tp_retrieval.InputError(f"--{name}: {into} has {stored!r}, asked for {value!r}; {remedy}")


def _check_maps(into: Path, stored: tp_retrieval.Recipe, other: tp_retrieval.Recipe) -> None:
    """Raise `IncompatibleIndexError` for a recipe of the same raw vectors with other maps, weights or dense share."""
    if stored != other and stored.raw() == other.raw():
        before, after = stored.to_dict(), other.to_dict()
        name = next(name for name in ("views", "dense_weight") if before.get(name) != after.get(name))
        difference = f"{name}: stored {json.dumps(before.get(name))}, given {json.dumps(after.get(name))}"
        raise tp_retrieval.IncompatibleIndexError(f"{into} was made by another recipe ({difference})")
