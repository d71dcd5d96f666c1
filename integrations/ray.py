"""A corpus embedded by many workers on Ray, each of which holds the model, into Parquet shards.

    embed_corpus([Path("passages.jsonl")], Path("embedded"), workers=8)
    index.add_vectors(shard.documents, shard.vectors, fingerprint=shard.made.fingerprint)   # for each of read_shards(...)

The corpus is cut into shards before anything is embedded, and a shard is one file, written whole. So a job that was stopped
does what is left, and a worker that is killed has its shard done again by another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data

from tp_retrieval import Embedder, InputError, Recipe, TPRetrievalError
from tp_retrieval.integrations.corpus import Slice, check_rows, documents_of, slices
from tp_retrieval.integrations.parquet import PLAN, Made, Shard, made_of, write_shard


@dataclass(frozen=True)
class EmbeddedCorpus:
    """What a job did: all rows and shards that are there now, and how many shards were there before."""

    rows: int
    shards: int
    skipped: int
    seconds: float


def embed_corpus(
    files: Sequence[Path],
    output: Path,
    *,
    model: str | None = None,
    recipe: str | Path | Recipe | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    workers: int = 2,
    gpus: float = 0,
    shard_rows: int = 1000,
    address: str | None = None,
    show_progress: bool = False,
) -> EmbeddedCorpus:
    """Embed the documents of .jsonl and .parquet files into a folder of Parquet shards; shards that are there are kept.

    A row has `text`, and may have `id` or `_id` (else its file's name and its number), `title`, and `metadata`, which other
    fields go to. Every row is looked at before any is embedded. Each worker holds the model, on `gpus` GPUs. `address` is a
    Ray cluster's, all of whose machines see the files and the output; else one is started here. Raises `InputError` for
    files that can't be read, or a folder that holds another job's shards.
    """
    if workers < 1 or shard_rows < 1:
        raise InputError(f"workers: {workers}, shard_rows: {shard_rows}; both must be at least 1")
    begin = time.perf_counter()
    parts = slices(files, shard_rows)
    if not (output / PLAN).exists():
        check_rows(parts)
    named = recipe.to_dict() if isinstance(recipe, Recipe) else None if recipe is None else str(recipe)
    settings = {"model": model, "recipe": named, "dtype": dtype, "revision": revision}
    _keep_plan(output, {"settings": settings, "slices": [asdict(one) for one in parts], "files": _stamps(files)})
    left = [i for i in range(len(parts)) if not _place(output, i).exists()]
    if left:
        _run(parts, left, output, settings, workers, gpus, address, show_progress)
    made = {made_of(_place(output, i)).fingerprint for i in range(len(parts))}
    if len(made) > 1:
        raise InputError(f"{output}: its shards are of {len(made)} embedders; remove those that another model made")
    for unfinished in output.glob(".shard-*"):  # what killed workers left
        unfinished.unlink()
    rows = sum(one.rows for one in parts)
    return EmbeddedCorpus(rows, len(parts), len(parts) - len(left), time.perf_counter() - begin)


def _run(
    parts: Sequence[Slice],
    left: Sequence[int],
    output: Path,
    settings: dict[str, Any],
    workers: int,
    gpus: float,
    address: str | None,
    show_progress: bool,
) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        here = {} if address or "RAY_ADDRESS" in os.environ else {"num_cpus": workers, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    context = ray.data.DataContext.get_current()
    before, context.enable_progress_bars = context.enable_progress_bars, show_progress
    try:
        common = json.dumps([settings, str(output.resolve())])  # in the rows, so that an actor can begin again anywhere
        jobs = [{"number": i, "slice": json.dumps(asdict(parts[i])), "common": common} for i in left]
        done = (
            ray.data.from_items(jobs, override_num_blocks=len(jobs))
            .map_batches(
                _Worker,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(jobs))),
                num_gpus=gpus or None,
            )
            .take_all()
        )
    finally:
        context.enable_progress_bars = before
        if started:
            ray.shutdown()
    wrong = [row["error"] for row in done if row["error"]]
    if wrong:
        raise InputError(wrong[0])


class _Worker:
    """An actor that loads the model at its first call and keeps it, and writes a shard a call."""

    def __init__(self) -> None:
        self._embedder: Embedder | None = None

    def _load(self, settings: dict[str, Any]) -> Embedder:
        given = dict(settings)
        if isinstance(given["recipe"], dict):
            given["recipe"] = Recipe.from_dict(given["recipe"])
        return Embedder.from_pretrained(given.pop("model"), **given)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed the batch's shards and write them; return what is wrong with the data, since trying again is no use."""
        try:
            self._write(batch)
        except TPRetrievalError as error:
            return {"error": [str(error)]}
        return {"error": [""]}

    def _write(self, batch: dict[str, Any]) -> None:
        for number, text, common in zip(batch["number"], batch["slice"], batch["common"], strict=True):
            settings, output = json.loads(str(common))
            self._embedder = self._embedder or self._load(settings)
            documents = list(documents_of(Slice(**json.loads(str(text)))))
            vectors = self._embedder.embed_documents([document.text for document in documents])
            write_shard(_place(Path(output), int(number)), Shard(documents, vectors, Made.by(self._embedder)))


def _place(output: Path, number: int) -> Path:
    return output / f"shard-{number:06d}.parquet"


def _keep_plan(output: Path, plan: dict[str, Any]) -> None:
    """Write what a job is to do, or compare it with what is there."""
    file = output / PLAN
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != plan:
            raise InputError(
                f"{output}: holds another job's shards (other files, settings or --shard-rows); take a new folder"
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: holds other files; give a new folder, or that of an interrupted job")
    output.mkdir(parents=True, exist_ok=True)
    beside = output / f".{PLAN}"
    beside.write_text(json.dumps(plan), encoding="utf-8")
    beside.replace(file)


def _stamps(files: Sequence[Path]) -> list[str]:
    """Return a digest of each file's path, size and time, by which a job knows its files again."""
    stamps = []
    for file in files:
        known = Path(file).stat()
        text = f"{Path(file).resolve()} {known.st_size} {known.st_mtime_ns}"
        stamps.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return stamps
