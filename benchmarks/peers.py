"""Compare document stores on the same rows in one run: tp_retrieval, FAISS, Chroma, LanceDB, Qdrant, sqlite-vec, txtai.

Rows are clustered unit vectors, 384 numbers each, with a text of 60 words and metadata. Each peer has a virtual environment
with pinned versions, made at the first run, and its own defaults: threads, index, durability. It adds in one process, opens
in three fresh ones, and is searched in one that stays: 20 queries at a time, turn by turn, so that all medians come from
the same minutes. Hits have ids, texts and metadata; FAISS alone gives row numbers, and its filters are bitmaps made before.
A peer that finds less than 0.99 of the ten nearest is searched again with a higher effort, if it has a parameter for that.
tp_retrieval, LanceDB and txtai index the words, too, for hybrid search, which is part of adding or building.

A process that adds batches of 1,000 gets SIGKILL at a random moment. Rows count as acknowledged when adding returns, those
of FAISS and txtai when saving does, each time over the same files. A fresh process counts the rows and searches for some of
them by their own vectors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Record = dict[str, Any]
"""A JSON object of the results."""

PINS = {
    "tp_retrieval": (),  # in the environment that runs this file
    "faiss": ("faiss-cpu==1.15.1",),
    "chroma": ("chromadb==1.5.9",),
    "lancedb": ("lancedb==0.40.0",),
    "lancedb-ivf-pq": ("lancedb==0.40.0",),
    "qdrant": ("qdrant-client==1.20.0",),
    "sqlite-vec": ("sqlite-vec==0.1.9", "apsw==3.54.1.0"),  # the sqlite3 of many Pythons loads no extensions
    "txtai": ("txtai==9.14.0", "torch==2.13.0"),
}
NUMPY = "numpy==2.4.6"
ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tp_retrieval_peers"

DIMENSION, BATCH, WORDS, K = 384, 10_000, 60, 10
PARTS = 1000  # metadata: {"n": i, "part": i % PARTS}
FILTERS = {"0.1%": 1, "1%": 10, "10%": 100, "50%": 500, "90%": 900, "99%": 990}  # part < this
QUERIES, FEWER, MANY, SLICE = 200, 40, 1000, 20  # timed alone; of each filter; in one call; in one turn
SLICE_SECONDS, MANY_SECONDS, ANSWER_SECONDS = 4, 30, 600
OPENINGS, KILL_BATCH, KILL_SECONDS, ENOUGH = 3, 1000, 3, 0.99


class Batch(NamedTuple):
    """Rows to add: their numbers, vectors and texts."""

    numbers: range
    vectors: Vectors
    texts: list[str]

    @property
    def metadata(self) -> list[dict[str, int]]:
        """The metadata of each row."""
        return [{"n": i, "part": i % PARTS} for i in self.numbers]


class Query(NamedTuple):
    """A query's vector and words."""

    vector: Vectors
    text: str


def drawn_vectors(count: int, seed: int) -> Vectors:
    """Return unit vectors near random centres, at about the distances that texts of one theme have."""
    centres = np.random.default_rng(0).standard_normal((1000, DIMENSION), dtype=np.float32)
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, DIMENSION), dtype=np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def drawn_texts(count: int, words: int, seed: int) -> list[str]:
    """Return texts whose words are as unequally frequent as those of a language (Zipf's law, 50,000 words)."""
    frequency = np.cumsum(1 / (np.arange(50_000) + 2.7))
    drawn = np.searchsorted(frequency, np.random.default_rng(seed).random((count, words)) * frequency[-1])
    return [" ".join(f"word{i}" for i in text) for text in drawn.tolist()]


def batch(begin: int, count: int) -> Batch:
    """Return rows, the same ones each time."""
    return Batch(range(begin, begin + count), drawn_vectors(count, 1 + begin), drawn_texts(count, WORDS, 1 + begin))


def queries() -> list[Query]:
    """Return queries of six words, whose vectors are no rows."""
    return [Query(*one) for one in zip(drawn_vectors(MANY, 0), drawn_texts(MANY, 6, 0), strict=True)]


def library(name: str) -> Any:
    """Import a module that only some environments have."""
    return importlib.import_module(name)


class Peer:
    """A store in a folder, which is created there unless it exists."""

    modules: ClassVar[tuple[str, ...]]
    efforts: ClassVar[tuple[Any, ...]] = ()
    """Values of its parameter of search effort above the default, in rising order."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def add(self, rows: Batch) -> None:
        """Add rows."""
        raise NotImplementedError

    def save(self) -> None:
        """Make durable what was added, if adding did not."""

    def finish(self) -> None:
        """Build the indexes that are not built while adding."""

    def search(self, query: Query, below: int | None = None) -> list[int]:
        """Return the numbers of the K nearest rows, of those with `part` below a number."""
        raise NotImplementedError

    def hybrid(self, query: Query) -> list[int]:
        """Search by vector and words; raises `NotImplementedError` if the store can't."""
        raise NotImplementedError

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        """Search for many queries in one call; raises `NotImplementedError` if the store can't."""
        raise NotImplementedError

    def raise_effort(self, effort: Any) -> None:
        """Search with one of the `efforts` from now on."""

    def count(self) -> int:
        """Return the number of rows."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the store."""


@dataclass
class _Known:
    """An embedder of queries whose vectors are known."""

    dimension: int = DIMENSION
    fingerprint: str = "synthetic"
    vectors: dict[str, Vectors] = field(default_factory=dict)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([self.vectors[text] for text in texts])

    embed_documents = embed_queries


class _TpRetrieval(Peer):
    """The index of this package."""

    modules = ("tp_retrieval", "tp_retrieval.indexing.index")
    efforts = (0.99,)  # target_recall, for when "auto" is not exact

    def __init__(self, folder: Path) -> None:
        from tp_retrieval import Index
        from tp_retrieval.types import PrecomputedVectors

        self.known = _Known()
        if folder.exists():
            self.index = Index.open(folder, self.known)
        else:
            self.index = Index.create(folder, PrecomputedVectors(DIMENSION, self.known.fingerprint))

    def add(self, rows: Batch) -> None:
        from tp_retrieval import Document

        parts = zip(rows.texts, rows.metadata, map(str, rows.numbers), strict=True)
        self.index.add([Document(*part) for part in parts], vectors=rows.vectors)

    def search(self, query: Query, below: int | None = None) -> list[int]:
        where = None if below is None else {"part": {"$lt": below}}
        return [int(str(hit.document.id)) for hit in self.index.search_by_vector(query.vector, K, where=where)]

    def hybrid(self, query: Query) -> list[int]:
        return [int(str(hit.document.id)) for hit in self.index.search_by_vector(query.vector, K, text=query.text)]

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        self.known.vectors = {query.text: query.vector for query in queries}
        found = self.index.search([query.text for query in queries], K, mode="dense")
        return [[int(str(hit.document.id)) for hit in hits] for hits in found]

    def raise_effort(self, effort: Any) -> None:
        self.index.rebuild(target_recall=effort)

    def count(self) -> int:
        return self.index.info().documents

    def close(self) -> None:
        self.index.close()


class _Faiss(Peer):
    """FAISS alone, exact: it keeps neither texts nor metadata."""

    modules = ("faiss",)

    def __init__(self, folder: Path) -> None:
        self.faiss, self.file = library("faiss"), folder / "index.faiss"
        self.index = self.faiss.read_index(str(self.file)) if folder.exists() else self.faiss.IndexFlatIP(DIMENSION)
        folder.mkdir(exist_ok=True)
        parts = np.arange(self.count()) % PARTS
        self.bits = {below: np.packbits(parts < below, bitorder="little") for below in FILTERS.values()}

    def add(self, rows: Batch) -> None:
        self.index.add(rows.vectors)

    def save(self) -> None:
        self.faiss.write_index(self.index, str(self.file))

    def search(self, query: Query, below: int | None = None) -> list[int]:
        parameters = None
        if below is not None:
            selector = self.faiss.IDSelectorBitmap(self.count(), self.faiss.swig_ptr(self.bits[below]))
            parameters = self.faiss.SearchParameters(sel=selector)
        found: list[int] = self.index.search(query.vector[None], K, params=parameters)[1][0].tolist()
        return found

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        found: list[list[int]] = self.index.search(np.array([query.vector for query in queries]), K)[1].tolist()
        return found

    def count(self) -> int:
        return int(self.index.ntotal)


class _Chroma(Peer):
    """Chroma's persistent client, with its HNSW index."""

    modules = ("chromadb",)
    efforts = (200, 400, 800, 1600)  # ef_search; the default is 100

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = library("chromadb.config").Settings(anonymized_telemetry=False)
        self.client = library("chromadb").PersistentClient(str(folder), settings=settings)
        space = {"hnsw": {"space": "cosine"}}
        self.rows = self.client.get_or_create_collection("rows", embedding_function=None, configuration=space)

    def add(self, rows: Batch) -> None:
        ids, size = [str(i) for i in rows.numbers], self.client.get_max_batch_size()
        for part in (slice(i, i + size) for i in range(0, len(ids), size)):
            self.rows.add(ids[part], rows.vectors[part], rows.metadata[part], rows.texts[part])

    def search(self, query: Query, below: int | None = None) -> list[int]:
        where = None if below is None else {"part": {"$lt": below}}
        return [int(i) for i in self.rows.query(query.vector, n_results=K, where=where)["ids"][0]]

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        found = self.rows.query(np.array([query.vector for query in queries]), n_results=K)
        return [[int(i) for i in ids] for ids in found["ids"]]

    def raise_effort(self, effort: Any) -> None:
        self.rows.modify(configuration={"hnsw": {"ef_search": effort}})
        self.close()
        self.__init__(self.folder)  # type: ignore[misc]  # an open index keeps its effort

    def count(self) -> int:
        return int(self.rows.count())

    def close(self) -> None:
        self.client.close()


class _LanceDB(Peer):
    """LanceDB as it is without an index of the vectors: exact."""

    modules = ("lancedb",)
    effort: tuple[int, int] | None = None

    def __init__(self, folder: Path) -> None:
        self.arrow = arrow = library("pyarrow")
        columns = {"n": arrow.int64(), "part": arrow.int64(), "text": arrow.string()}
        self.schema = arrow.schema(columns | {"vector": arrow.list_(arrow.float32(), DIMENSION)})
        self.table = library("lancedb").connect(str(folder)).create_table("rows", schema=self.schema, exist_ok=True)

    def add(self, rows: Batch) -> None:
        vectors = self.arrow.FixedSizeListArray.from_arrays(self.arrow.array(rows.vectors.ravel()), DIMENSION)
        numbers = np.array(rows.numbers)
        self.table.add(self.arrow.table([numbers, numbers % PARTS, rows.texts, vectors], schema=self.schema))

    def finish(self) -> None:
        self.table.create_index("text", config=library("lancedb.index").FTS())

    def search(self, query: Query, below: int | None = None) -> list[int]:
        search = self._nearest(query.vector)
        search = search if below is None else search.where(f"part < {below}")
        return [row["n"] for row in search.limit(K).to_list()]

    def hybrid(self, query: Query) -> list[int]:
        search = self.table.search(query_type="hybrid").vector(query.vector).text(query.text).distance_type("cosine")
        return [row["n"] for row in search.limit(K).to_list()]

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in queries]
        for row in self._nearest([query.vector for query in queries]).limit(K).to_list():
            found[row["query_index"]].append(row["n"])
        return found

    def _nearest(self, vectors: Any) -> Any:
        search = self.table.search(vectors).distance_type("cosine").select(["n", "part", "text", "_distance"])
        return search if self.effort is None else search.nprobes(self.effort[0]).refine_factor(self.effort[1])

    def count(self) -> int:
        return int(self.table.count_rows())


class _LanceDBIndexed(_LanceDB):
    """LanceDB with its IVF-PQ index of the vectors."""

    efforts = ((20, 5), (20, 10), (20, 20), (50, 50), (400, 100))  # nprobes and refine_factor

    def finish(self) -> None:
        super().finish()
        self.table.create_index("vector", config=library("lancedb.index").IvfPq(distance_type="cosine"))

    def raise_effort(self, effort: Any) -> None:
        self.effort = effort


class _Qdrant(Peer):
    """Qdrant's local mode, which is its Python client alone: exact."""

    modules = ("qdrant_client",)

    def __init__(self, folder: Path) -> None:
        self.models = library("qdrant_client.models")
        self.client = library("qdrant_client").QdrantClient(path=str(folder))
        if not self.client.collection_exists("rows"):
            vectors = self.models.VectorParams(size=DIMENSION, distance=self.models.Distance.COSINE)
            self.client.create_collection("rows", vectors_config=vectors)

    def add(self, rows: Batch) -> None:
        payloads = [{**metadata, "text": text} for metadata, text in zip(rows.metadata, rows.texts, strict=True)]
        points = self.models.Batch(ids=list(rows.numbers), vectors=rows.vectors.tolist(), payloads=payloads)
        self.client.upsert("rows", points)

    def search(self, query: Query, below: int | None = None) -> list[int]:
        condition = self.models.FieldCondition(key="part", range=self.models.Range(lt=below))
        where = None if below is None else self.models.Filter(must=[condition])
        return [hit.id for hit in self.client.query_points("rows", query.vector, query_filter=where, limit=K).points]

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        requests = [self.models.QueryRequest(query=query.vector.tolist(), limit=K, with_payload=True) for query in queries]
        return [[hit.id for hit in found.points] for found in self.client.query_batch_points("rows", requests)]

    def count(self) -> int:
        return int(self.client.count("rows").count)

    def close(self) -> None:
        self.client.close()


class _SqliteVec(Peer):
    """The virtual table of sqlite-vec with a metadata column: exact."""

    modules = ("apsw", "sqlite_vec")

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.database = library("apsw").Connection(str(folder / "rows.sqlite"))
        self.database.enable_load_extension(True)
        library("sqlite_vec").load(self.database)
        columns = f"vector float[{DIMENSION}] distance_metric=cosine, part integer, +n integer, +text text"
        self.database.execute(f"create virtual table if not exists rows using vec0({columns})")

    def add(self, rows: Batch) -> None:
        parts = zip(rows.numbers, map(bytes, rows.vectors), (i % PARTS for i in rows.numbers), rows.texts, strict=True)
        with self.database:
            self.database.executemany("insert into rows(rowid, vector, part, n, text) values (?1, ?2, ?3, ?1, ?4)", parts)

    def search(self, query: Query, below: int | None = None) -> list[int]:
        more = "" if below is None else f" and part < {below}"
        statement = f"select rowid, distance, n, part, text from rows where vector match ? and k = {K}{more}"
        return [row[0] for row in self.database.execute(statement, (query.vector.tobytes(),))]

    def count(self) -> int:
        return int(self.database.execute("select count(*) from rows").fetchall()[0][0])

    def close(self) -> None:
        self.database.close()


class _Txtai(Peer):
    """The embeddings of txtai with content and BM25; the lists of its FAISS index are trained on the first batch."""

    modules = ("txtai",)
    efforts = (64, 128, 256, 512)  # nprobe; the default depends on the number of rows

    def __init__(self, folder: Path) -> None:
        self.folder, self.vectors = str(folder), dict[str, Vectors]()

        def transform(texts: list[str]) -> Vectors:
            return np.array([self.vectors[text] for text in texts])

        settings = {"method": "external", "transform": transform, "content": True, "hybrid": True}
        self.rows = library("txtai").Embeddings(settings)
        if folder.exists():
            self.rows.load(self.folder, config={"transform": transform})
        self.scoring = self.rows.scoring

    def add(self, rows: Batch) -> None:
        self.vectors = dict(zip(rows.texts, rows.vectors, strict=True))
        parts = zip(rows.numbers, rows.texts, rows.metadata, strict=True)
        self.rows.upsert((i, {"text": text, **metadata}) for i, text, metadata in parts)

    def save(self) -> None:
        self.rows.save(self.folder)

    def search(self, query: Query, below: int | None = None) -> list[int]:
        self.rows.scoring = None  # else each search scores the words, too
        return self._found([query], "" if below is None else f" and part < {below}")[0]

    def hybrid(self, query: Query) -> list[int]:
        self.rows.scoring = self.scoring
        return self._found([query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[list[int]]:
        self.rows.scoring = None
        return self._found(queries)

    def _found(self, queries: Sequence[Query], more: str = "") -> list[list[int]]:
        self.vectors = {query.text: query.vector for query in queries}
        statement = f"select id, score, text, n, part from txtai where similar(:x){more}"
        parameters = [{"x": query.text} for query in queries]
        found = self.rows.batchsearch([statement] * len(queries), K, parameters=parameters)
        return [[int(row["id"]) for row in rows] for rows in found]

    def raise_effort(self, effort: Any) -> None:
        self.rows.config["faiss"] = {"nprobe": effort}

    def count(self) -> int:
        return int(self.rows.count())

    def close(self) -> None:
        self.rows.close()


PEERS: dict[str, type[Peer]] = {
    "tp_retrieval": _TpRetrieval,
    "faiss": _Faiss,
    "chroma": _Chroma,
    "lancedb": _LanceDB,
    "lancedb-ivf-pq": _LanceDBIndexed,
    "qdrant": _Qdrant,
    "sqlite-vec": _SqliteVec,
    "txtai": _Txtai,
}

# -- in the process of a peer


def peak() -> float:
    """Return the most memory this process ever held, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work took."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def recall(found: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> float:
    """Return the share of the true rows that were found, of the first queries if not all were asked."""
    pairs = [(set(one), set(other)) for one, other in zip(found, truth, strict=False)]
    return sum(len(one & other) for one, other in pairs) / sum(len(other) for _, other in pairs)


def fill(name: str, folder: Path, rows: int) -> Iterator[Record]:
    """Add all rows."""
    peer, took = PEERS[name](folder), 0.0
    for begin in range(0, rows, BATCH):
        took += seconds(partial(peer.add, batch(begin, min(BATCH, rows - begin))))
    took += seconds(peer.save)
    build = seconds(peer.finish)
    took += seconds(peer.close)
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    yield {"add_rate": rows / took, "build": build, "peak_mb": peak(), "disk_mb": disk / 2**20}


def endless(name: str, folder: Path, rows: int) -> Iterator[Record]:
    """Add batches until the process is killed."""
    peer = PEERS[name](folder)
    for begin in range(0, sys.maxsize, KILL_BATCH):
        peer.add(batch(begin, KILL_BATCH))
        peer.save()
        yield {"acknowledged": begin + KILL_BATCH}


def check(name: str, folder: Path, rows: int) -> Iterator[Record]:
    """Count the rows, and search for the first row of each of the latest 20 acknowledged batches by its vector."""
    peer = PEERS[name](folder)
    count = peer.count()
    begins = range(0, rows, KILL_BATCH)[-20:]
    found = sum(begin in peer.search(Query(batch(begin, KILL_BATCH).vectors[0], f"query {begin}")) for begin in begins)
    yield {"rows": count, "found": found / len(begins)}


def serve(name: str, folder: Path, rows: int) -> Iterator[Record]:
    """Open the store, search once, and answer the commands that come on standard input."""
    asked = queries()
    imported = seconds(lambda: [library(module) for module in PEERS[name].modules])
    begin = time.perf_counter()
    peer = PEERS[name](folder)
    peer.search(asked[0])
    yield {"import": imported, "open": time.perf_counter() - begin}
    for line in sys.stdin:
        command = json.loads(line)
        yield COMMANDS[command.pop("do")](peer, asked, **command) | {"peak_mb": peak()}


def search(peer: Peer, asked: Sequence[Query], kind: str, begin: int, count: int) -> Record:
    """Search for a slice of the queries, one after the other, until the time of a slice is over."""
    took: list[float] = []
    ids: list[list[int]] = []
    for query in asked[begin : begin + count]:
        start = time.perf_counter()
        try:
            ids.append(peer.hybrid(query) if kind == "hybrid" else peer.search(query, FILTERS.get(kind)))
        except NotImplementedError:
            break
        took.append(1000 * (time.perf_counter() - start))
        if sum(took) > 1000 * SLICE_SECONDS:
            break
    return {"ms": took, "ids": ids}


def search_many(peer: Peer, asked: Sequence[Query]) -> Record:
    """Search for a tenth of the queries in one call, and then for all unless that would take too long."""
    try:
        took, count = seconds(lambda: peer.search_many(asked[: MANY // 10])), MANY // 10
        if 10 * took < MANY_SECONDS:
            took, count = seconds(lambda: peer.search_many(asked)), MANY
    except NotImplementedError:
        return {"rate": None}
    return {"rate": count / took, "count": count}


def raise_effort(peer: Peer, asked: Sequence[Query], truth: list[list[int]]) -> Record:
    """Raise the effort until the recall is enough."""
    tried: dict[str, float] = {}
    for effort in peer.efforts:
        peer.raise_effort(effort)
        tried[str(effort)] = recall([peer.search(query) for query in asked[: len(truth)]], truth)
        if tried[str(effort)] >= ENOUGH:
            return {"effort": str(effort), "tried": tried}
    return {"effort": None, "tried": tried}


COMMANDS: dict[str, Callable[..., Record]] = {"search": search, "search_many": search_many, "raise_effort": raise_effort}
TASKS = {"fill": fill, "endless": endless, "check": check, "serve": serve}

# -- in the process that measures


class FailedError(Exception):
    """A peer that can't be installed, crashed or did not answer."""


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line for line in reversed(text.split("\n")) if line.strip()), "no message")[:300]


def interpreter(name: str, environments: Path) -> str:
    """Return the Python of a peer's environment, which is made unless it is there; raises `FailedError`."""
    if not PINS[name]:
        return sys.executable
    folder, pins = environments / PINS[name][0].split("==")[0], [*PINS[name], NUMPY]
    python, made = folder / "bin/python", folder / "made-of.txt"
    if not made.exists() or made.read_text().split() != pins:
        print(f"installing {' '.join(pins)}", file=sys.stderr)
        for command in ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "-q", *pins]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise FailedError(f"can't be installed: {last_line(done.stderr)}")
        made.write_text("\n".join(pins))
    return str(python)


class Side:
    """A process in a peer's environment that does a task of this file; raises `FailedError` where it gives no answer."""

    def __init__(self, python: str, name: str, task: str, folder: Path, rows: int) -> None:
        command = [python, "-P", __file__, "--side", name, "--task", task, "--folder", str(folder), "--rows", str(rows)]
        quiet = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self.errors, pipe = folder.with_name(f"{folder.name}-{task}.txt"), subprocess.PIPE
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=quiet)
        self.input, self.output = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)

    def answer(self) -> Record:
        """Return the next line."""
        timer = threading.Timer(ANSWER_SECONDS, self.process.kill)
        timer.start()
        line = self.output.readline()
        timer.cancel()
        if not line:
            raise self._failure()
        record: Record = json.loads(line)
        return record

    def _failure(self) -> FailedError:
        code = self.process.wait()
        return FailedError(f"exit code {code}: {last_line(self.errors.read_text())}")

    def ask(self, **command: Any) -> Record:
        """Send a command and return its answer."""
        with suppress(BrokenPipeError):  # then there is no answer
            self.input.write(json.dumps(command) + "\n")
            self.input.flush()
        return self.answer()

    def kill_after(self, pause: float) -> Record:
        """Kill the process some seconds after its first answer and return its last."""
        answers = [self.answer()]
        threading.Timer(pause, self.process.kill).start()
        answers += [json.loads(line) for line in self.output if line.endswith("\n")]
        if self.process.wait() != -signal.SIGKILL:
            raise self._failure()
        return answers[-1]

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.input.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self.output.close()


def true_rows(rows: int) -> dict[str, list[list[int]]]:
    """Return the nearest rows to each query, of all and under each filter."""
    vectors = np.concatenate([drawn_vectors(min(BATCH, rows - begin), 1 + begin) for begin in range(0, rows, BATCH)])
    scores = np.array([query.vector for query in queries()[:QUERIES]]) @ vectors.T  # (queries, rows)
    nearest = {}
    for kind, below in {"all": PARTS, **FILTERS}.items():
        kept = np.flatnonzero(np.arange(rows) % PARTS < below)
        order = np.argpartition(-scores[:, kept], min(K, len(kept)) - 1, axis=1)[:, :K]
        nearest[kind] = kept[order].tolist()
    return nearest


class Comparison:
    """The measurements of all peers; one that fails is left out from then on, and its record says why."""

    def __init__(self, names: Sequence[str], rows: int, environments: Path, folder: Path) -> None:
        self.rows, self.environments, self.folder = rows, environments, folder
        self.truth = true_rows(rows)
        self.pythons: dict[str, str] = {}
        self.sides: dict[str, Side] = {}
        self.records: dict[str, Record] = {name: {"openings": [], "searches": {}, "kills": []} for name in names}

    def measure(self, kills: int) -> None:
        """Measure everything."""
        self._each("fill", self._fill)
        for i in range(OPENINGS):
            self._each(f"opening {i + 1}", self._open)
        for kind in ("all", *FILTERS, "hybrid"):
            self._search(kind, kind, QUERIES if kind == "all" else FEWER)
        self._each("many queries", self._search_many)
        self._each("effort", self._raise_effort)
        self._search("all", "raised", QUERIES)
        for side in self.sides.values():
            side.close()
        with ThreadPoolExecutor(2) as executor:  # nothing is timed here
            list(executor.map(lambda name: self._guarded(name, partial(self._kill, kills=kills)), self._alive()))

    def _alive(self) -> list[str]:
        return [name for name, record in self.records.items() if "failure" not in record]

    def _each(self, title: str, work: Callable[[str], None]) -> None:
        for name in self._alive():
            took = seconds(partial(self._guarded, name, work))
            print(f"{title}: {name}, {took:.1f} s", file=sys.stderr)

    def _guarded(self, name: str, work: Callable[[str], None]) -> None:
        try:
            work(name)
        except FailedError as error:
            self.records[name]["failure"] = str(error)

    def _side(self, name: str, task: str, folder: Path | None = None, rows: int = 0) -> Side:
        return Side(self.pythons[name], name, task, folder or self.folder / name, rows or self.rows)

    def _fill(self, name: str) -> None:
        self.pythons[name] = interpreter(name, self.environments)
        with closing(self._side(name, "fill")) as side:
            self.records[name] |= side.answer()

    def _open(self, name: str) -> None:
        if name in self.sides:
            self.sides.pop(name).close()
        self.sides[name] = self._side(name, "serve")
        self.records[name]["openings"].append(self.sides[name].answer())

    def _search(self, kind: str, title: str, count: int) -> None:
        """Search turn by turn, after two queries that warm."""
        answers: dict[str, list[Record]] = {name: [] for name in self.records}

        def ask(name: str, begin: int, count: int = SLICE) -> None:
            answers[name].append(self.sides[name].ask(do="search", kind=kind, begin=begin, count=count))

        begins = range(0, count, SLICE)
        for turn in (partial(ask, begin=0, count=2), *(partial(ask, begin=begin) for begin in begins)):
            for name in self._alive():
                self._guarded(name, turn)
        for name in self._alive():
            pairs = [*zip(begins, answers[name][1:], strict=True)]
            took = [one for _, answer in pairs for one in answer["ms"]]
            if not took:
                continue
            p50, p99 = np.quantile(took, [0.5, 0.99]).tolist()
            record: Record = {"p50_ms": p50, "p99_ms": p99, "count": len(took)}
            if kind in self.truth:  # a slice may have ended early
                true = [self.truth[kind][begin + i] for begin, answer in pairs for i in range(len(answer["ids"]))]
                record["recall"] = recall([ids for _, answer in pairs for ids in answer["ids"]], true)
            self.records[name]["searches"][title] = record
        print(f"searched: {title}", file=sys.stderr)

    def _search_many(self, name: str) -> None:
        self.records[name]["many"] = self.sides[name].ask(do="search_many")

    def _raise_effort(self, name: str) -> None:
        if self.records[name]["searches"]["all"]["recall"] < ENOUGH:
            self.records[name]["raised"] = self.sides[name].ask(do="raise_effort", truth=self.truth["all"])

    def _kill(self, name: str, kills: int) -> None:
        if name == "lancedb-ivf-pq":
            return  # until it is built, its table is that of lancedb
        for i in range(kills):
            folder = self.folder / f"{name}-{i}"
            with closing(self._side(name, "endless", folder)) as side:
                kill = side.kill_after(random.uniform(0, KILL_SECONDS))
            try:
                with closing(self._side(name, "check", folder, kill["acknowledged"])) as side:
                    kill |= side.answer()
            except FailedError as error:
                kill["failure"] = f"after a kill: {error}"
            self.records[name]["kills"].append(kill)
            shutil.rmtree(folder)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=CACHE, help="folder of the peers' virtual environments")


def measure(options: argparse.Namespace) -> Record:
    """Return a record of every peer."""
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(options.peers, options.rows, options.environments.absolute(), Path(folder))
        comparison.measure(options.kills)
    return {"rows": options.rows, "batch": KILL_BATCH, "enough": ENOUGH, "pins": PINS, "peers": comparison.records}


def main() -> None:
    """Do a task of one peer, in the process of its own that `Side` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True, choices=list(PEERS))
    parser.add_argument("--task", required=True, choices=list(TASKS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for record in TASKS[options.task](options.side, options.folder, options.rows):
        print(json.dumps(record), file=answers, flush=True)


if __name__ == "__main__":
    main()
