"""`tp-retrieval index`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm.auto import tqdm

from tp_retrieval.cli.output import Json, Model, RecipeOption, hint_unmeasured, print_fields, print_json
from tp_retrieval.documents.sources import Source, find, read, records
from tp_retrieval.errors import IncompatibleIndexError, IndexNotFoundError, InputError, OptionalDependencyError
from tp_retrieval.indexing.storage.store import FILE

if TYPE_CHECKING:
    from tp_retrieval import Document, Index

_BATCH = 64  # chunks that are embedded and made durable together
_REFIT_AT = 1.2  # growth since the maps were fitted from which fitting anew is worth it


class TokenizerName(StrEnum):
    """How text is cut for the lexical search."""

    words = "words"
    trigram = "trigram"


@dataclass
class _Indexed:
    """What the index holds of one file."""

    digests: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    expected: int = 0


@dataclass(frozen=True)
class _Report:
    index: str
    files: int
    unchanged_files: int
    added: int
    removed: int
    documents: int


def index(
    into: Annotated[Path, typer.Option(help="Folder of the index; made if it is not there.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders: .md .rst .txt .html .jsonl")] = None,
    from_parquet: Annotated[
        Path | None, typer.Option(help="Folder that `embed-corpus` wrote: its vectors are loaded, nothing is embedded.")
    ] = None,
    model: Model = None,
    recipe: RecipeOption = None,
    chunk_tokens: Annotated[int, typer.Option(min=16, help="Longest chunk, in the model's tokens.")] = 256,
    kind: Annotated[
        str | None, typer.Option(help="Of a new index: auto, flat, hnsw, ivf, ivf-sq8, ivf-pq or a FAISS factory string.")
    ] = None,
    tokenizer: Annotated[
        TokenizerName | None, typer.Option(help="Of a new index: stemmed words, or trigrams for languages without spaces.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Index files and folders. Run it again after a change: unchanged files are skipped, removed ones forgotten."""
    if (from_parquet is None) == (not paths):
        raise InputError("give files and folders to embed, or --from-parquet, and not both")
    made = {"kind": kind, "tokenizer": None if tokenizer is None else tokenizer.value}
    wanted = {name: value for name, value in made.items() if value is not None}
    if from_parquet is not None:
        _show(_load(into, from_parquet, wanted), as_json)
        return
    roots = paths or []
    sources = [read(path) for path in find(roots)]
    for source in sources:
        if source.format == "jsonl":
            list(records(source))  # a broken line is named before any work is done

    opened, count_tokens = _open(into, model, recipe, wanted)
    with opened:
        report = _update(opened, count_tokens, sources, [path for path in roots if path.is_dir()], chunk_tokens)
    _show(report, as_json)


def _show(report: _Report, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
    else:
        print_fields(asdict(report))


def _load(into: Path, folder: Path, made: Mapping[str, Any]) -> _Report:
    """Add the documents and vectors of Parquet shards; a new index is made by the embedder that made them."""
    try:
        from tp_retrieval.integrations import parquet
    except ImportError as error:
        raise OptionalDependencyError(error.name or "pyarrow", "ray") from error
    from tp_retrieval import Embedder, Index, Recipe

    files = parquet.shard_files(folder)
    first = parquet.made_of(files[0])
    try:
        opened = Index.open(into)
    except IndexNotFoundError:
        recipe = Recipe.from_dict(first.recipe)
        embedder = Embedder.from_pretrained(first.source, recipe=recipe, revision=first.revision, dtype=first.dtype)
        opened = Index.create(into, embedder, **made)
    added = 0
    with opened:
        for shard in tqdm(parquet.read_shards(folder), total=len(files), unit="shard", disable=not sys.stderr.isatty()):
            opened.add_vectors(shard.documents, shard.vectors, fingerprint=shard.made.fingerprint)
            added += len(shard.documents)
        if len(opened) > _REFIT_AT * opened.info().fitted_on > 0:
            opened.rebuild()
        return _Report(str(into), len(files), 0, added, 0, len(opened))


def _open(into: Path, model: str | None, recipe: str | None, made: Mapping[str, Any]) -> tuple[Index, Callable[[str], int]]:
    """Open the index, or make it as asked; the model is loaded if it must be, and tokens are counted by it."""
    from tp_retrieval import Embedder, Index, Recipe

    try:
        opened = Index.open(into)
    except IndexNotFoundError:
        if into.exists() and (not into.is_dir() or any(not file.name.startswith(FILE) for file in into.iterdir())):
            raise InputError(f"--into: {into} holds other files; give an index, an empty folder or a new one") from None
        embedder = Embedder.from_pretrained(model, recipe=recipe)
        if recipe is None:
            hint_unmeasured("retrieval", embedder.backbone.name)
        return Index.create(into, embedder, **made), embedder.count_tokens
    for name, value in made.items():
        stored = getattr(opened.info(), name)
        if stored != value:
            remedy = "change it with `tp-retrieval rebuild`" if name == "kind" else "it is chosen when the index is made"
            opened.close()
            raise InputError(f"--{name}: {into} has {stored!r}, asked for {value!r}; {remedy}")
    if model is None and recipe is None:
        if not isinstance(opened.embedder, Embedder):
            raise InputError(f"--into: {into} was made by an embedder that counts no tokens")
        return opened, opened.embedder.count_tokens
    with opened:
        made_by = opened.info()
    kept = None if made_by.recipe is None else Recipe.from_dict(made_by.recipe)
    embedder = Embedder.from_pretrained(model or made_by.source, recipe=recipe or kept)
    if kept not in (None, embedder.recipe) and embedder.recipe.raw() == kept.raw():
        one, other = kept.to_dict(), embedder.recipe.to_dict()
        name = next(name for name in ("views", "dense_weight") if one.get(name) != other.get(name))
        stored, given = json.dumps(one.get(name)), json.dumps(other.get(name))
        raise IncompatibleIndexError(f"{into} was made by another recipe ({name}: stored {stored}, given {given})")
    return Index.open(into, embedder), embedder.count_tokens


def _update(
    opened: Index, count_tokens: Callable[[str], int], sources: Sequence[Source], roots: Sequence[Path], chunk_tokens: int
) -> _Report:
    known = _known_files(opened)
    stale: set[str] = set()
    pending: list[Document] = []
    kept: set[str | None] = set()
    taken: dict[str, str] = {}  # ids of files that stay as they are
    unchanged = 0
    for source in sources:
        before = known.pop(str(source.path), _Indexed())
        digest = source.digest(chunk_tokens)
        if before.digests == {digest} and len(before.ids) == before.expected:
            unchanged += 1
            taken |= dict.fromkeys(before.ids, str(source.path))
            continue
        from tp_retrieval.documents.chunks import chunk

        chunks = chunk(source, chunk_tokens, count_tokens)
        kept |= {document.id for document in chunks}
        there = set(before.ids) if before.digests == {digest} else set()  # an interrupted run left some of them
        pending += [document for document in chunks if document.id not in there]
        stale |= set(before.ids)
    for path, before in known.items():
        if any(Path(path).is_relative_to(root.resolve()) for root in roots):
            stale |= set(before.ids)  # the file is gone from a folder that was given
        else:
            taken |= dict.fromkeys(before.ids, path)

    _check_ids(pending, taken)
    with tqdm(total=len(pending), unit="chunk", disable=not sys.stderr.isatty()) as bar:
        for batch in _batches(pending):
            try:
                opened.add(batch)
            except KeyboardInterrupt:
                sys.stderr.write("tp-retrieval: interrupted; what was indexed so far is kept\n")
                raise typer.Exit(130) from None
            bar.update(len(batch))
    removed = opened.delete(sorted(stale - kept))
    if len(opened) > _REFIT_AT * opened.info().fitted_on > 0:
        opened.rebuild()
    return _Report(str(opened.info().path), len(sources), unchanged, len(pending), removed, len(opened))


def _known_files(opened: Index) -> dict[str, _Indexed]:
    known: dict[str, _Indexed] = defaultdict(_Indexed)
    for document in opened:
        path = document.metadata.get("path")
        if isinstance(path, str) and document.id is not None:
            entry = known[path]
            entry.digests.add(str(document.metadata.get("digest")))
            entry.ids.append(document.id)
            chunks = document.metadata.get("chunks")
            entry.expected = chunks if isinstance(chunks, int) else 0
    return known


def _check_ids(documents: Sequence[Document], taken: Mapping[str, str]) -> None:
    paths = dict(taken)
    for document in documents:
        path, id_ = document.metadata["path"], str(document.id)
        if id_ in paths:
            raise InputError(f"{path}: the id {id_!r} is taken by {paths[id_]}")
        paths[id_] = path


def _batches(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    for begin in range(0, len(documents), _BATCH):
        yield documents[begin : begin + _BATCH]
