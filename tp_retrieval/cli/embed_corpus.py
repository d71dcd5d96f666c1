"""`tp-retrieval embed-corpus`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, RecipeOption, print_report
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read
from tp_retrieval.sqlite.atomic import atomic_write

_CHUNKS = "chunks.jsonl"


@with_model_options
def embed_corpus(
    paths: Annotated[
        list[Path], typer.Argument(help="Files .jsonl and .parquet with `text`, or folders of texts to chunk.")
    ],
    into: Annotated[Path, typer.Option(help="Folder of the shards; an interrupted job goes on in its folder.")],
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that embed, each with the model loaded.")] = 2,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each process.")] = 0,
    shard_rows: Annotated[int, typer.Option(min=1, help="Documents of a shard.")] = 1000,
    chunk_tokens: Annotated[int, typer.Option(min=16, help="Longest chunk of a folder's texts.")] = 256,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster; by default one starts here.")] = None,
    as_json: Json = False,
) -> None:
    """Embed a corpus with many workers into Parquet, for `tp-retrieval index --from-parquet` to load."""
    try:
        from tp_retrieval.integrations.ray import embed_corpus as embed_on_ray
    except ImportError as error:
        raise tp_retrieval.OptionalDependencyError(error.name or "ray", "ray") from error
    for path in paths:
        if not path.exists():
            raise tp_retrieval.InputError(f"{path}: no such file or folder")
    tables = [path for path in paths if path.is_file() and path.suffix in (".jsonl", ".parquet")]
    texts = [path for path in paths if path not in tables]
    if texts:
        tables.append(_chunked(texts, into.absolute(), model, chunk_tokens))
    with redirect_stdout(sys.stderr):  # Ray prints on stdout
        done = embed_on_ray(
            tables,
            into,
            model=model.model,
            recipe=recipe,
            **model.arguments,
            workers=workers,
            gpus=gpus,
            shard_rows=shard_rows,
            address=address,
            show_progress=sys.stderr.isatty(),
        )
    report = {"into": str(into), **asdict(done), "seconds": round(done.seconds, 1)}
    print_report(report, as_json)


def _chunked(paths: list[Path], into: Path, model: ModelOptions, chunk_tokens: int) -> Path:
    """Write the chunks of folders and files beside the shards' folder, unless it has them already; return the file."""
    from tp_retrieval.documents.chunks import chunk

    file = into.with_name(f"{into.name}.{_CHUNKS}")
    embedder = model.embedder()
    lines = [
        json.dumps({"id": document.id, "text": document.text, "metadata": dict(document.metadata)})
        for path in find(paths).files
        for document in chunk(read(path), chunk_tokens, embedder.count_tokens)
    ]
    text = "".join(f"{line}\n" for line in lines)
    if not file.exists() or file.read_text(encoding="utf-8") != text:  # the job is identified by the file's time
        with atomic_write(file) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return file
