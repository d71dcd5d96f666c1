"""`tp-retrieval index`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm.auto import tqdm

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, RecipeOption, hint_unmeasured, print_report, shortened
from tp_retrieval.documents.folders import FolderRules, SkippedFile, find
from tp_retrieval.documents.formats import ReadingOptions
from tp_retrieval.documents.sources import read
from tp_retrieval.embedding.recipe import DEFAULT_RECIPE
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision
from tp_retrieval.indexing.storage.store import FILE

_WORTH_TELLING, _LONG, _HEARTBEAT = 20.0, 120.0, 30.0  # seconds
_TICK = 1_000  # milliseconds until the first look at what changed before watching began
_FIRST_SURE = 2  # the batch by which time is told; the first one also reads the prompts


@dataclass(frozen=True)
class _Report:
    index: str
    files: int
    unchanged_files: int
    added: int
    removed: int
    documents: int
    moved: int = 0
    empty_files: int = 0
    skipped: Sequence[SkippedFile] = ()

    def rows(self, *, verbose: bool) -> dict[str, Any]:
        """Return what people are shown: zeros that say nothing are left out, skipped files are counted by kind."""
        rows = {
            name: value for name, value in asdict(self).items() if value or name not in ("moved", "empty_files", "skipped")
        }
        if self.skipped:
            names = "".join(f"\n{shortened(str(file.path))}: {file.reason}" for file in self.skipped) if verbose else ""
            rows["skipped"] = summary_of(self.skipped) + ("" if verbose else " (names with -v)") + names
        return rows


@with_model_options
def index(
    into: Annotated[Path, typer.Option(help="Folder of the index; created if missing.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files and folders: text, Markdown, HTML, PDF, Office, CSV, notebooks, code."),
    ] = None,
    from_parquet: Annotated[
        Path | None, typer.Option(help="Folder that `embed-corpus` wrote: its vectors are loaded, no document is embedded.")
    ] = None,
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=16, help="Longest chunk, in the model's tokens; at first 256. An index keeps it.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files of this .gitignore pattern. May be repeated; an index keeps it.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No files of this .gitignore pattern. May be repeated; an index keeps it.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that ids and paths are relative to; by default the one that holds PATHS.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files; by default each one's is detected.")] = None,
    json_text: Annotated[str | None, typer.Option(help="Where texts are in .json files, such as items[].body.")] = None,
    namespace: Annotated[str, typer.Option(help="Index into this namespace, apart from the documents of others.")] = "",
    loader: Annotated[
        list[str] | None,
        typer.Option(
            help="Command that reads a kind of file, .EXT=COMMAND: given the path, it writes text. May be repeated."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a file that can't be read, before any change.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: update the index whenever files change.")] = False,
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
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name the files that were skipped, and why.")] = False,
    as_json: Json = False,
) -> None:
    """Index files and folders. A second run skips unchanged files and removes the documents of deleted ones.

    .gitignore and .ignore files are followed, hidden files left out. Files that can't be read are skipped and counted.
    """
    if (from_parquet is None) == (not paths):
        raise tp_retrieval.InputError("give files and folders to embed, or --from-parquet, and not both")
    of_a_new_index = {"kind": kind, "tokenizer": tokenizer, "raw": raw}
    created_with = {name: value for name, value in of_a_new_index.items() if value is not None}
    if from_parquet is not None:
        _print(_load(into, from_parquet, created_with, namespace), as_json, verbose)
        return
    loaders = loaders_of(loader or [])
    if watch and importlib.util.find_spec("watchfiles") is None:
        raise tp_retrieval.OptionalDependencyError("watchfiles", "files")
    if not (into / FILE).exists():  # an index that is there knows how its files are read
        _check_files(paths or [], ReadingOptions(encoding, json_text, loaders))
    file_options = {
        "chunk_tokens": chunk_tokens,
        "include": include,
        "exclude": exclude,
        "root": root,
        "encoding": encoding,
        "json_text": json_text,
        "loaders": loaders,
        "strict": strict,
        "namespace": namespace,
    }
    options = {name: value for name, value in file_options.items() if value is not None}
    with _open(into, model, recipe, created_with) as opened:
        _print(_update(opened, paths or [], options), as_json, verbose)
        if watch:
            _watch(opened, paths or [], options, as_json, verbose)


def _print(report: _Report, as_json: bool, verbose: bool) -> None:
    print_report(asdict(report) if as_json else report.rows(verbose=verbose), as_json)


def _check_files(paths: Sequence[Path], reading: ReadingOptions) -> None:
    """Raise `InputError` before a model is loaded for a path without a file, and a file that can't be read."""
    find(paths, FolderRules(suffixes=reading.loaders))
    for path in paths:
        if path.is_file():
            list(read(path, options=reading).sections())


def loaders_of(options: Sequence[str]) -> dict[str, str]:
    """Return commands by suffix; raise `InputError` for an option that is not .EXT=COMMAND."""
    loaders = {}
    for option in options:
        suffix, _, command = option.partition("=")
        if not suffix.startswith(".") or not command.strip():
            raise tp_retrieval.InputError(f"--loader: {option!r} must be .EXT=COMMAND, such as '.odt=pandoc -t markdown'")
        loaders[suffix.lower()] = command
    return loaders


def summary_of(skipped: Sequence[SkippedFile]) -> str:
    """Return how many files were skipped, by kind."""
    kinds = Counter(
        file.path.suffix.lower() if file.reason.startswith("no reader") or "pip install" in file.reason else "unreadable"
        for file in skipped
    )
    remedies = sorted({file.reason.partition("Run: ")[2] for file in skipped if "Run: " in file.reason})
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return counted + (f"; for some of them: {', '.join(remedies)}" if remedies else "")


def _update(opened: tp_retrieval.Index, paths: Sequence[Path], options: Mapping[str, Any]) -> _Report:
    from tp_retrieval.indexing.importers.files import index_files

    recipe = {} if opened.provenance is None else opened.provenance.recipe
    try:
        changes = index_files(
            opened, paths, show_progress=sys.stderr.isatty(), on_progress=ProgressLines(recipe).show, **options
        )
    except KeyboardInterrupt:
        sys.stderr.write("tp-retrieval: interrupted; what was indexed so far is kept\n")
        raise typer.Exit(130) from None
    return _Report(str(opened.path), documents=len(opened), **vars(changes))


def _watch(
    opened: tp_retrieval.Index, paths: Sequence[Path], options: Mapping[str, Any], as_json: bool, verbose: bool
) -> None:
    """Update the index after every change of the files, until the command is interrupted."""
    from watchfiles import watch

    index_folder, begun = os.path.realpath(opened.path), False
    watched = [os.path.realpath(path) for path in paths]
    sys.stderr.write("tp-retrieval: watching; Ctrl-C ends it\n")
    for changes in watch(
        *watched,
        watch_filter=lambda _, path: not Path(path).is_relative_to(index_folder),
        yield_on_timeout=True,
        rust_timeout=_TICK,
        raise_interrupt=False,
    ):
        if begun and not changes:
            continue
        begun = True  # what changed before the watching began is seen now
        try:
            report = _update(opened, paths, options)
        except tp_retrieval.TPRetrievalError as error:  # such as two files with one id: until the next change
            sys.stderr.write(f"tp-retrieval: {error}\n")
            continue
        if report.added or report.removed or report.moved:
            _print(report, as_json, verbose)


class ProgressLines:
    """Lines on stderr that say how long the other chunks will take: once, and every half a minute without a terminal."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = recipe
        self._batches = 0
        self._last = time.monotonic()

    def show(self, done: int, total: int, seconds_a_chunk: float) -> None:
        """Write a line if one is due."""
        self._batches += 1
        now = time.monotonic()
        left = (total - done) * seconds_a_chunk
        if self._batches == _FIRST_SURE and total > done:
            _tell_time(self._recipe, total - done, left)
        elif not sys.stderr.isatty() and now - self._last > _HEARTBEAT and total > done:
            self._last = now
            sys.stderr.write(f"tp-retrieval: {done:,} of {total:,} chunks, about {_duration(left)} left\n")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < _LONG else f"{seconds / 60:.0f} minutes"


def _tell_time(recipe: Mapping[str, Any], chunks: int, seconds: float) -> None:
    """Write how long the other chunks will take, and name the faster recipe if that is over two minutes."""
    if seconds < _WORTH_TELLING:
        return
    line = f"tp-retrieval: {chunks:,} more chunks will take about {_duration(seconds)}"
    exits = [view.get("exit") for view in recipe.get("views", []) if view.get("sample") is None]
    if seconds >= _LONG and any(exit_ not in (0, 1) for exit_ in exits):
        line += "; --recipe retrieval-fast reads one block of the model at most, for a new index"
    sys.stderr.write(f"{line}\n")


def _load(into: Path, folder: Path, options: Mapping[str, Any], namespace: str) -> _Report:
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
            opened.add_vectors(shard.documents, shard.vectors, fingerprint=shard.made.fingerprint, namespace=namespace)
            added += len(shard.documents)
        refit_if_grown(opened, show_progress=sys.stderr.isatty())
        return _Report(str(into), len(files), 0, added, 0, len(opened))


def _open(into: Path, model: ModelOptions, recipe: str | None, created_with: Mapping[str, Any]) -> tp_retrieval.Index:
    """Open or create the index."""
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
        return tp_retrieval.Index.create(into, embedder, **created_with)
    _check_options(opened, into, created_with)
    if model.model is None and recipe is None:
        return opened
    with opened:
        info = opened.info()
    stored = None if info.recipe is None else tp_retrieval.Recipe.from_dict(info.recipe)
    embedder = replace(model, model=model.model or info.source).embedder(recipe or stored)
    if stored is not None:
        _check_maps(into, stored, embedder.recipe)
    return tp_retrieval.Index.open(into, embedder)


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
