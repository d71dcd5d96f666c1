"""Searches beside adding and reranking: latency by route, errors, and memory over time.

The documents of a set are added first. Then 4 clients search for a minute alone,
and a minute beside one that adds; then all clients run at once, and the server's memory is read each second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tp_retrieval.evaluation.datasets import RetrievalSet, read_retrieval

FEW = 4  # clients that search alone, and beside one that adds
ADDED = 16  # documents of a request
Took = dict[str, list[float]]


class Load:
    """Clients of one server, and what their requests took by route."""

    def __init__(self, address: str, data: RetrievalSet) -> None:
        self._address = address
        self._queries = itertools.cycle(data.queries.values())
        self._texts = itertools.cycle(list(data.documents.values()))
        self._number = itertools.count()
        self.took: Took = defaultdict(list)
        self.errors: dict[str, int] = defaultdict(int)

    async def run(self, clients: list[Callable[[], Iterator[tuple[str, str, dict[str, Any]]]]], seconds: float) -> None:
        """Let each client send what it yields, one request after the other, until the time is up."""
        end = time.perf_counter() + seconds

        async def one(requests: Iterator[tuple[str, str, dict[str, Any]]]) -> None:
            transport = httpx.AsyncHTTPTransport(uds=self._address)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=300) as http:
                for name, path, body in requests:
                    if time.perf_counter() > end:
                        return
                    begin = time.perf_counter()
                    response = await http.post(path, json=body)
                    self.took[name].append(time.perf_counter() - begin)
                    self.errors[name] += response.status_code != 200

        work: list[Coroutine[Any, Any, None]] = [one(make()) for make in clients]
        await asyncio.gather(*work)

    def searches(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield searches for ever."""
        for query in self._queries:
            yield "search", "/v1/search", {"query": query, "index": "load", "k": 10}

    def additions(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield documents to add for ever; the later ones replace the first, so that the index stays as large."""
        while True:
            rows = {f"n{next(self._number) % 4000}": f"{next(self._texts)} {next(self._number)}" for _ in range(ADDED)}
            documents = [{"text": text, "id": id_} for id_, text in rows.items()]
            yield "add", "/v1/indexes/load/documents", {"documents": documents}

    def rerankings(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield reranked searches for ever."""
        for query in self._queries:
            yield "search, reranked", "/v1/search", {"query": query, "index": "load", "k": 5, "rerank": True}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--set", default="python-faq")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--phase", type=float, default=60, help="seconds of the searches alone, and beside adding")
    parser.add_argument("--searchers", type=int, default=32)
    parser.add_argument("--adders", type=int, default=4)
    parser.add_argument("--recipe", default="retrieval-fast")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start a server, load it, and return what it took."""
    data = read_retrieval(options.data / "ir" / options.set)
    with tempfile.TemporaryDirectory() as place:
        address = f"{place}/socket"
        command = [str(Path(sys.executable).with_name("tp-retrieval")), "serve", "--host", f"unix:{address}"]
        command += ["--data", f"{place}/data", "--recipe", options.recipe]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            try:
                return measured(server, address, data, options)
            finally:
                server.terminate()


def measured(
    server: subprocess.Popen[bytes], address: str, data: RetrievalSet, options: argparse.Namespace
) -> dict[str, Any]:
    """Fill an index, and return the latency of each phase, and the server's memory."""
    while not os.path.exists(address):
        if server.poll() is not None:
            raise SystemExit("the server did not start")
        time.sleep(0.2)
    with httpx.Client(transport=httpx.HTTPTransport(uds=address), base_url="http://localhost", timeout=3600) as http:
        http.post("/v1/indexes", json={"name": "load"}).raise_for_status()
        rows = [{"text": text, "id": id_} for id_, text in data.documents.items()]
        lines = "\n".join(json.dumps(row) for row in rows)
        http.post(
            "/v1/indexes/load/documents", content=lines, headers={"content-type": "application/x-ndjson"}
        ).raise_for_status()
    quiet, busy, together = (Load(address, data) for _ in range(3))
    asyncio.run(quiet.run([quiet.searches] * FEW, options.phase))
    asyncio.run(busy.run([busy.searches] * FEW + [busy.additions], options.phase))
    clients = [together.searches] * options.searchers + [together.additions] * options.adders + [together.rerankings]
    memory = asyncio.run(watched(together, clients, options.seconds, psutil.Process(server.pid)))
    third = max(len(memory) // 3, 1)
    parts = {"second third": memory[third : 2 * third] or memory, "last third": memory[-third:]}
    return {
        "set": options.set,
        "recipe": options.recipe,
        "documents": len(data.documents),
        "phases": {
            f"{FEW} searchers": latencies(quiet),
            f"{FEW} searchers, 1 adder": latencies(busy),
            f"{options.searchers} searchers, {options.adders} adders, 1 reranking": latencies(together),
        },
        "p99 beside adding over alone": quantile(busy.took["search"], 99) / quantile(quiet.took["search"], 99),
        "memory, MB": {name: statistics.median(part) / 2**20 for name, part in parts.items()},
    }


def latencies(load: Load) -> dict[str, dict[str, float]]:
    """Return the requests, the latency and the errors of each route."""
    return {
        name: {
            "requests": len(took),
            "p50": 1000 * quantile(took, 50),
            "p99": 1000 * quantile(took, 99),
            "errors": load.errors[name],
        }
        for name, took in load.took.items()
    }


async def watched(load: Load, clients: list[Any], seconds: float, process: psutil.Process) -> list[int]:
    """Run clients, and return the server's memory each second."""
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    await load.run(clients, seconds)
    watching.cancel()
    return memory


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else values[0]
