"""What the index costs beside FAISS alone: adding, snapshots, opening, searching, filtering, memory, recall.

Run: python benchmarks/scale.py [--rows 10000 100000 1000000] [--kinds flat ivf] [--output FILE]

Vectors are synthetic and clustered, 576 numbers each, every row with a short text and metadata. Each side fills its index
in a process of its own: rows in batches of 10,000, then a snapshot; memory is the peak of the process less what it held
before the first row. A third process opens both and asks both, turn by turn, single queries with k = 10, with and without a
filter that keeps 1% of the rows. FAISS alone keeps no texts and no metadata: its filter is a bitmap made before, ours is a
`where` that is answered anew each time. The approximate kinds of FAISS alone get the parameters that the index found.
Prints a table and writes benchmarks/results/scale.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from tp_retrieval.types import Float32Array, PrecomputedVectors

ROOT = Path(__file__).parents[1]
DIMENSION, BATCH, QUERIES, K = 576, 10_000, 200, 10
EMBEDDER = PrecomputedVectors(DIMENSION, "synthetic")
Record = dict[str, Any]
"""A JSON object of the results."""
KEPT = 100  # one row in so many passes the filter


def batches(rows: int) -> Iterator[tuple[int, Float32Array]]:
    """Yield clustered unit vectors, the same ones each time."""
    centres = np.random.default_rng(0).standard_normal((1000, DIMENSION), dtype=np.float32)
    for begin in range(0, rows, BATCH):
        yield begin, drawn(centres, min(BATCH, rows - begin), seed=1 + begin)


def drawn(centres: Float32Array, count: int, seed: int) -> Float32Array:
    """Return unit vectors near random centres, at about the distances that texts of one theme have."""
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, DIMENSION), dtype=np.float32)
    unit: Float32Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def queries() -> Float32Array:
    """Return unit vectors that are no rows."""
    centres = np.random.default_rng(0).standard_normal((1000, DIMENSION), dtype=np.float32)
    return drawn(centres, QUERIES, seed=0)


def peak() -> float:
    """Return the most memory this process ever held, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(calls: Mapping[str, Callable[[Float32Array], object]]) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of single calls, in ms, made turn by turn."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for query in queries():
        for name, call in calls.items():
            begin = time.perf_counter()
            call(query)
            took[name].append(1000 * (time.perf_counter() - begin))
    return {n: {"p50_ms": float(np.median(t)), "p99_ms": float(np.quantile(t, 0.99))} for n, t in took.items()}


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
    from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors

    watch, before = Watch(), peak()
    with Index.create(folder / "index", EMBEDDER, kind="flat") as index:
        adding = 0.0
        with patch.object(SyncedVectors, "save"):  # adding is timed without snapshots
            for begin, vectors in batches(rows):
                documents = [
                    Document(f"text {i}", {"n": i, "part": i % KEPT}, str(i)) for i in range(begin, begin + len(vectors))
                ]
                start = time.perf_counter()
                index.add(documents, vectors=vectors)
                adding += time.perf_counter() - start
        added = peak() - before
        watch("snapshot", lambda: index._vectors.save(at_least=1))
        if kind != "flat":
            watch("build", lambda: index.rebuild(kind=kind))
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
    if tuning is not None:
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
    bits = np.packbits(np.arange(rows) % KEPT == 7, bitorder="little")
    selector = faiss.IDSelectorBitmap(rows, faiss.swig_ptr(bits))
    inner = faiss.downcast_index(alone.index)
    if isinstance(inner, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=min(inner.nlist, inner.nprobe * KEPT))
    elif isinstance(inner, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=min(rows, inner.hnsw.efSearch * KEPT))
    elif isinstance(inner, faiss.IndexRefine):
        parameters = None  # a fast scan takes no filter
    else:
        parameters = faiss.SearchParameters(sel=selector)

    def ours_ids(query: Float32Array, where: dict[str, int] | None = None) -> list[int]:
        return [int(str(hit.document.id)) for hit in index.search_by_vector(query, K, where=where)]

    def alone_ids(query: Float32Array, parameters: object = None) -> list[int]:
        found: list[int] = alone.search(query[None], K, params=parameters)[1][0].tolist()
        return found

    timed({"tp_retrieval": ours_ids, "faiss": alone_ids})  # warm
    searched = timed({"tp_retrieval": ours_ids, "faiss": alone_ids})
    where = {"part": 7}
    filtered = timed({"tp_retrieval": lambda q: ours_ids(q, where), "faiss": lambda q: alone_ids(q, parameters)})
    ids = {
        "tp_retrieval": [[ours_ids(q) for q in queries()], [ours_ids(q, where) for q in queries()]],
        "faiss": [[alone_ids(q) for q in queries()], [alone_ids(q, parameters) for q in queries()]],
    }
    index.close()
    return {
        name: {
            "open": float(np.median(opening[name])),
            "searched": searched[name],
            "filtered": filtered[name],
            "ids": found,
        }
        for name, found in ids.items()
    }


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
    if isinstance(approximate, faiss.IndexRefine):
        approximate.k_factor = tuning["candidates"]
    faiss.write_index(index, file)


def measured(side: str, rows: int, kind: str, folder: Path, tuning: object = None) -> Record:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--rows", str(rows), "--kinds", kind, "--folder", str(folder)]
    done = subprocess.run([*command, "--tuning", json.dumps(tuning)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    record: Record = json.loads(done.stdout)
    return record


def recall(found: list[list[int]], truth: list[list[int]]) -> float:
    """Return the share of the true rows that were found."""
    return float(np.mean([len(set(one) & set(other)) / K for one, other in zip(found, truth, strict=True)]))


ROWS_OF_TABLE: dict[str, Callable[[Record], float | None]] = {
    "added, rows/s": lambda r: r["add_rate"],
    "snapshot, s": lambda r: r["snapshot"],
    "build and tune, s": lambda r: r.get("build"),
    "open, s": lambda r: r["open"],
    "search p50, ms": lambda r: r["searched"]["p50_ms"],
    "search p99, ms": lambda r: r["searched"]["p99_ms"],
    "1% filter p50, ms": lambda r: r["filtered"]["p50_ms"],
    "1% filter p99, ms": lambda r: r["filtered"]["p99_ms"],
    "recall of the 10 nearest": lambda r: r["recall"],
    "the same under the filter": lambda r: r["filtered_recall"],
    "peak while adding, MB": lambda r: r["peak_mb"],
    "peak of all, MB": lambda r: r["peak_all_mb"],
    "on disk, MB": lambda r: r["disk_mb"],
}


def show(record: Record) -> None:
    """Print both sides and their ratio."""
    need = record["rows"] * DIMENSION * 4 / 2**20  # the vectors alone
    tuning = record["tp_retrieval"]["tuning"]
    how = "exact" if tuning is None else f"{tuning['factory']}, {tuning['parameters']}, recall measured {tuning['recall']}"
    table = Table("", "tp_retrieval", "FAISS alone", "ratio", title=f"{record['rows']:,} rows ({need:.0f} MB), {how}")
    for name, value in ROWS_OF_TABLE.items():
        one, other = value(record["tp_retrieval"]), value(record["faiss"])
        if one is not None and other is not None:
            table.add_row(name, f"{one:,.3g}", f"{other:,.3g}", f"{one / other:.2f}")
    Console(width=100).print(table)


def main() -> None:
    """Measure each kind at each size, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["flat", "ivf"])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/scale.json")
    parser.add_argument("--side", choices=["ours", "raw", "both"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tuning", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        rows, kind = arguments.rows[0], arguments.kinds[0]
        more = (arguments.tuning,) if arguments.side == "raw" else ()
        sides: dict[str, Callable[..., Record]] = {"ours": ours, "raw": raw, "both": both}
        print(json.dumps(sides[arguments.side](rows, kind, arguments.folder, *more)))
        return
    records = []
    for rows in arguments.rows:
        truth = None
        for kind in arguments.kinds:
            with tempfile.TemporaryDirectory() as folder:
                mine = measured("ours", rows, kind, Path(folder))
                theirs = measured("raw", rows, kind, Path(folder), mine["tuning"])
                asked = measured("both", rows, kind, Path(folder))
            truth = truth or asked["faiss"]["ids"]  # the first kind is exact
            for side, found in ((mine, asked["tp_retrieval"]), (theirs, asked["faiss"])):
                ids = found.pop("ids")
                side |= found | {"recall": recall(ids[0], truth[0]), "filtered_recall": recall(ids[1], truth[1])}
            records.append({"rows": rows, "kind": kind, "tp_retrieval": mine, "faiss": theirs})
            show(records[-1])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
