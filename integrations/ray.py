"""Embedding a corpus into Parquet shards with many Ray workers, each of which holds the model.

    embed_corpus([Path("passages.jsonl")], Path("embedded"), workers=8)
    index.add_vectors(shard.documents, shard.vectors, fingerprint=shard.made.fingerprint)   # for each of read_shards(...)

The corpus is cut into shards before anything is embedded, and a shard is one file, written whole. So an interrupted job
continues with the missing shards, and another worker repeats the shard of a killed one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
import ray.data

from tp_retrieval import Embedder, InputError, Recipe, TPRetrievalError
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.integrations.corpus import Slice, check_rows, documents_of, slices
from tp_retrieval.integrations.loading import as_json
from tp_retrieval.integrations.parquet import PLAN, Shard, ShardOrigin, origin_of, write_shard
from tp_retrieval.sqlite.atomic import atomic_write


@dataclass(frozen=True)
class EmbeddedCorpus:
    """The result of a job: the rows and shards of the output folder, and how many shards were kept from an earlier run."""

    rows: int
    shards: int
    skipped: int
    seconds: float


def embed_corpus(
    files: Sequence[Path],
    output: Path,
    *,
    model: str | Path | None = None,
    recipe: str | Path | Recipe | Mapping[str, object] | None = None,
    device: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    model_kwargs: Mapping[str, object] | None = None,
    workers: int = 2,
    gpus: float = 0,
    shard_rows: int = 1000,
    address: str | None = None,
    show_progress: bool = False,
) -> EmbeddedCorpus:
    """Embed the documents of .jsonl and .parquet files into a folder of Parquet shards; existing shards are kept.

    A row has `text`, and may have `id` or `_id` (else its file's name and its number), `title`, and `metadata`, which other
    fields go to. Every row is checked before any is embedded. Each worker holds the model, on `gpus` GPUs. `address` is a
    Ray cluster's, all of whose machines see the files and the output; else one is started here. Raises `InputError` for
    files that can't be read, or a folder that holds another job's shards.
    """
    if workers < 1 or shard_rows < 1:
        raise InputError(f"workers: {workers}, shard_rows: {shard_rows}; both must be at least 1")
    begin = time.perf_counter()
    parts = slices(files, shard_rows)
    if not (output / PLAN).exists():
        check_rows(parts)
    named = {"model": as_json(model), "recipe": as_json(recipe)}
    settings: dict[str, object] = {**named, "dtype": dtype, "revision": revision}
    settings |= {name: value for name, value in {"device": device, "model_kwargs": model_kwargs}.items() if value}
    _keep_plan(output, {"settings": settings, "slices": [asdict(part) for part in parts], "files": _stamps(files)})
    left = [i for i in range(len(parts)) if not _shard_path(output, i).exists()]
    if left:
        _run(parts, left, output, settings, workers, gpus, address, show_progress)
    fingerprints = {origin_of(_shard_path(output, i)).fingerprint for i in range(len(parts))}
    if len(fingerprints) > 1:
        raise InputError(f"{output}: its shards are of {len(fingerprints)} embedders; remove those that another model made")
    for unfinished in output.glob(".shard-*"):  # temporary files of killed workers
        unfinished.unlink()
    rows = sum(part.rows for part in parts)
    return EmbeddedCorpus(rows, len(parts), len(parts) - len(left), time.perf_counter() - begin)


def _run(
    parts: Sequence[Slice],
    left: Sequence[int],
    output: Path,
    settings: Mapping[str, object],
    workers: int,
    gpus: float,
    address: str | None,
    show_progress: bool,
) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        local = not address and "RAY_ADDRESS" not in os.environ
        ray.init(
            address=address,
            num_cpus=workers if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
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
    errors = [row["error"] for row in done if row["error"]]
    if errors:
        raise InputError(errors[0])


class _Worker:
    """An actor that loads the model at its first call and keeps it, and writes a shard a call."""

    def __init__(self) -> None:
        self._embedder: Embedder | None = None

    def __call__(self, batch: Mapping[str, Sequence[object]]) -> dict[str, list[str]]:
        """Embed the batch's shards and write them; return errors in the data as text, which no retry would help."""
        try:
            self._write(batch)
        except TPRetrievalError as error:
            return {"error": [str(error)]}
        return {"error": [""]}

    def _write(self, batch: Mapping[str, Sequence[object]]) -> None:
        for number, text, common in zip(batch["number"], batch["slice"], batch["common"], strict=True):
            settings, output = json.loads(str(common))
            self._embedder = self._embedder or EmbedderSettings.from_dict(settings).load()
            documents = list(documents_of(Slice(**json.loads(str(text)))))
            vectors = self._embedder.embed_documents([document.text for document in documents])
            write_shard(
                _shard_path(Path(output), int(str(number))), Shard(documents, vectors, ShardOrigin.of(self._embedder))
            )


def _shard_path(output: Path, number: int) -> Path:
    return output / f"shard-{number:06d}.parquet"


def _keep_plan(output: Path, plan: dict[str, object]) -> None:
    """Write the plan of a job, or compare it with the plan in the output folder."""
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
    with atomic_write(file) as scratch:
        scratch.write_text(json.dumps(plan), encoding="utf-8")


def _stamps(files: Sequence[Path]) -> list[str]:
    """Return a digest of each file's path, size and time, by which a continued job recognises its files."""
    stamps = []
    for file in files:
        stat = Path(file).stat()
        text = f"{Path(file).resolve()} {stat.st_size} {stat.st_mtime_ns}"
        stamps.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return stamps
