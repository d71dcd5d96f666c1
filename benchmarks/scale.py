"""What the index costs beside FAISS alone: adding, snapshots, opening, searching, filtering, memory, recall.

Vectors are synthetic and clustered, 384 numbers each; every row has a text of 60 words and metadata. Each side fills its
index in a process of its own: rows in batches of 10,000, then a snapshot; memory is the peak of the process less what it
held before the first row. A third process opens both and asks single queries with k = 10, a block of them each by turns,
with and without filters. FAISS alone keeps no texts and no metadata: its filter is a bitmap made before. Beside "auto" and
scans FAISS alone is `IndexFlatIP`; other approximate kinds of FAISS alone get the parameters that the index found.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tp_retrieval.types import Float32Array, PrecomputedVectors

DIMENSION, BATCH, QUERIES, K = 384, 10_000, 200, 10
SYLLABLES = [f"{a}{b}" for a in ("rt", "l", "st", "mm", "nd", "p", "ck", "t") for b in ("", "o", "el", "ing", "er")]
WORDS = np.array([f"{a}{b}{c}" for a in "bcdfglmnpr" for b in "aeiou" for c in SYLLABLES])
EMBEDDER = PrecomputedVectors(DIMENSION, "synthetic")
Record = dict[str, Any]
"""A JSON object of the results."""
PARTS = 1000  # a row's `part` is its number modulo this
KEPT = (1, 10, 100, 500, 900, 990)  # parts that pass a filter
MANY, MOST_COMPARED = 10_000, 200_000
BLOCK = 20  # queries that one side is asked in a row: the other one's threads and memory are out of the way by then


def batches(rows: int) -> Iterator[tuple[int, Float32Array]]:
    """Yield clustered unit vectors, the same ones each time."""
    for begin in range(0, rows, BATCH):
        yield begin, drawn(centres(), min(BATCH, rows - begin), seed=1 + begin)


@cache
def centres() -> Float32Array:
    """Return what the rows lie around."""
    return np.random.default_rng(0).standard_normal((1000, DIMENSION), dtype=np.float32)


def drawn(around: Float32Array, count: int, seed: int) -> Float32Array:
    """Return unit vectors near random centres, at about the distances that texts of one theme have."""
    rng = np.random.default_rng(seed)
    vectors = around[rng.integers(0, len(around), count)] + rng.standard_normal((count, DIMENSION), dtype=np.float32)
    unit: Float32Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def queries() -> Float32Array:
    """Return unit vectors that are no rows."""
    return drawn(centres(), QUERIES, seed=0)


def peak() -> float:
    """Return the most memory this process ever held, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(calls: Mapping[str, Callable[[Float32Array], object]]) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of single calls, in ms, made in blocks by turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    asked = queries()
    for first in range(0, len(asked), BLOCK):
        for name, call in calls.items():
            for query in asked[first : first + BLOCK]:
                begin = time.perf_counter()
                call(query)
                took[name].append(1000 * (time.perf_counter() - begin))
    return {n: {"p50_ms": float(np.median(t)), "p99_ms": float(np.quantile(t, 0.99))} for n, t in took.items()}


def text(number: int) -> str:
    """Return a text of 60 words, of which some are frequent."""
    rng = np.random.default_rng(number)
    return " ".join(WORDS[(2000 * rng.random(60) ** 4).astype(int)])


class Watch:
    """A stopwatch: seconds by name."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], object]) -> object:
        """Do the work and note how long it took."""
        begin = time.perf_counter()
        result = work()
        self.took[name] = time.perf_counter() - begin
        return result


def ours(rows: int, kind: str, folder: Path) -> Record:
    """Measure the index."""
    from tp_retrieval import Document, Index

    with Index.create(folder / "index", EMBEDDER, kind=kind) as index:
        watch, before, adding = Watch(), peak(), 0.0
        for begin, vectors in batches(rows):
            numbers = range(begin, begin + len(vectors))
            documents = [Document(text(i), {"n": i, "part": i % PARTS}, str(i)) for i in numbers]
            start = time.perf_counter()
            index.add(documents, vectors=vectors)
            adding += time.perf_counter() - start
        watch("build", index.wait_until_built)
        added = peak() - before
        watch("snapshot", lambda: index._vectors.save(at_least=1))
        tuning = index.info().tuning
        disk = index.info().bytes_on_disk
    return watch.took | {
        "add_rate": rows / adding,
        "tuning": None if tuning is None else asdict(tuning),
        "peak_mb": added,
        "peak_all_mb": peak() - before,
        "disk_mb": disk / 2**20,
    }


def raw(rows: int, kind: str, folder: Path, tuning: Record | None) -> Record:
    """Measure FAISS alone, with the factory string and the parameters that the index found."""
    watch, before = Watch(), peak()
    exact = faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSION))
    adding = 0.0
    for begin, vectors in batches(rows):
        start = time.perf_counter()
        exact.add_with_ids(vectors, np.arange(begin, begin + len(vectors)))
        adding += time.perf_counter() - start
    added = peak() - before
    file = str(folder / "index.faiss")
    watch("snapshot", lambda: faiss.write_index(exact, file))
    if tuning is not None and "x4fs" not in tuning["factory"]:
        build(exact, tuning, watch, file)
    return watch.took | {
        "add_rate": rows / adding,
        "peak_mb": added,
        "peak_all_mb": peak() - before,
        "disk_mb": Path(file).stat().st_size / 2**20,
    }


def both(rows: int, kind: str, folder: Path) -> dict[str, Record]:
    """Open both indexes and ask both, turn by turn."""
    from tp_retrieval import Index

    opening: dict[str, list[float]] = {"tp_retrieval": [], "faiss": []}
    for _ in range(5):
        begin = time.perf_counter()
        opened = Index.open(folder / "index", EMBEDDER)
        opening["tp_retrieval"].append(time.perf_counter() - begin)
        opened.close()
        begin = time.perf_counter()
        alone = faiss.read_index(str(folder / "index.faiss"))
        opening["faiss"].append(time.perf_counter() - begin)
        del opened, alone
    index, alone = Index.open(folder / "index", EMBEDDER), faiss.read_index(str(folder / "index.faiss"))

    def ours_ids(query: Float32Array, where: dict[str, Any] | None = None) -> list[int]:
        return [int(str(hit.document.id)) for hit in index.search_by_vector(query, K, where=where)]

    def alone_ids(query: Float32Array, parameters: object = None) -> list[int]:
        found: list[int] = alone.search(query[None], K, params=parameters)[1][0].tolist()
        return found

    timed({"tp_retrieval": ours_ids, "faiss": alone_ids})  # warm
    results: dict[str, Record] = {name: {"open": float(np.median(took))} for name, took in opening.items()}
    for kept in (None, *KEPT):
        where = None if kept is None else {"part": {"$lt": kept}}
        begin = time.perf_counter()
        ours_ids(queries()[0], where)
        first = 1000 * (time.perf_counter() - begin)
        selector, parameters = selected(alone, rows, kept)
        calls = {"tp_retrieval": partial(ours_ids, where=where), "faiss": partial(alone_ids, parameters=parameters)}
        for name, took in timed(calls).items():
            ids = [calls[name](query) for query in queries()]
            results[name][str(kept)] = took | {"ids": ids}
        results["tp_retrieval"][str(kept)]["first_ms"] = first
        del selector
    many = drawn(centres(), MANY, seed=0)
    watch = Watch()
    watch("tp_retrieval", lambda: index.search_by_vectors(many, K))
    watch("faiss", lambda: alone.search(many, K))
    for name, seconds in watch.took.items():
        results[name]["many"] = MANY / seconds
    if rows <= MOST_COMPARED:
        begin = time.perf_counter()
        index.duplicates(0.99)
        results["tp_retrieval"]["duplicates"] = time.perf_counter() - begin
        results["faiss"]["duplicates"] = seconds_of_products(rows)
    index.close()
    return results


def seconds_of_products(rows: int) -> float:
    """Return how long the products of all rows with all earlier ones take numpy, from those of one block."""
    block = drawn(centres(), 4096, seed=0)
    block @ block.T
    begin = time.perf_counter()
    for _ in range(5):
        block @ block.T
    return (time.perf_counter() - begin) / 5 * (rows / len(block)) ** 2 / 2


def selected(alone: faiss.Index, rows: int, kept: int | None) -> tuple[object, object]:
    """Return a bitmap of the rows that pass a filter and FAISS's parameters for it; it must outlive them."""
    if kept is None:
        return None, None
    bits = np.packbits(np.arange(rows) % PARTS < kept, bitorder="little")
    selector = faiss.IDSelectorBitmap(rows, faiss.swig_ptr(bits))
    inner, effort = faiss.downcast_index(alone.index), PARTS // kept
    parameters: object = faiss.SearchParameters(sel=selector)
    if isinstance(inner, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=min(inner.nlist, inner.nprobe * effort))
    elif isinstance(inner, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=min(rows, inner.hnsw.efSearch * effort))
    return (bits, selector), parameters


def build(exact: faiss.Index, tuning: Record, watch: Watch, file: str) -> None:
    """Write an approximate index of the same rows, built and tuned as the index did it."""
    rows = exact.ntotal
    stored = faiss.rev_swig_ptr(faiss.downcast_index(exact.index).get_xb(), rows * DIMENSION).reshape(rows, DIMENSION)
    approximate = faiss.index_factory(DIMENSION, tuning["factory"], faiss.METRIC_INNER_PRODUCT)
    count = min(rows, 40 * getattr(approximate, "nlist", 256))
    approximate.train(stored[np.sort(np.random.default_rng(0).choice(rows, count, replace=False))])
    index = faiss.IndexIDMap2(approximate)
    watch("build", lambda: index.add_with_ids(stored, np.arange(rows)))
    faiss.ParameterSpace().set_index_parameters(approximate, tuning["parameters"])
    faiss.write_index(index, file)


def measured(side: str, rows: int, kind: str, folder: Path, tuning: object = None) -> Record:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--rows", str(rows), "--kind", kind, "--folder", str(folder)]
    done = subprocess.run([*command, "--tuning", json.dumps(tuning)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    record: Record = json.loads(done.stdout)
    return record


def recall(found: list[list[int]], truth: list[list[int]]) -> float:
    """Return the share of the true rows that were found."""
    return float(np.mean([len(set(one) & set(other)) / K for one, other in zip(found, truth, strict=True)]))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["auto"])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return a record of every number of rows and kind."""
    records: list[Record] = []
    for rows in options.rows:
        truth = None
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                mine = measured("ours", rows, kind, Path(folder))
                theirs = measured("raw", rows, kind, Path(folder), mine["tuning"])
                asked = measured("both", rows, kind, Path(folder))
            truth = truth or {name: asked["faiss"][name]["ids"] for name in map(str, (None, *KEPT))}  # exact
            for side, found in ((mine, asked["tp_retrieval"]), (theirs, asked["faiss"])):
                for name in truth:
                    found[name]["recall"] = recall(found[name].pop("ids"), truth[name])
                side |= found
            records.append({"rows": rows, "kind": kind, "tp_retrieval": mine, "faiss": theirs})
            print(records[-1], flush=True)
    return {"dimension": DIMENSION, "kept": {str(kept): kept / PARTS for kept in KEPT}, "records": records}


def main() -> None:
    """Measure one side, in the process of its own that `measured` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True, choices=["ours", "raw", "both"])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tuning", type=json.loads)
    options = parser.parse_args()
    more = (options.tuning,) if options.side == "raw" else ()
    sides: dict[str, Callable[..., Record]] = {"ours": ours, "raw": raw, "both": both}
    print(json.dumps(sides[options.side](options.rows, options.kind, options.folder, *more)))


if __name__ == "__main__":
    main()
