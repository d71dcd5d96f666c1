"""Measure `tp-retrieval serve` under load, with requests computed together and each alone, in one run.

Each client sends one short text after the other on its own connection. Two servers, one after the other by turns; the
medians of the turns, and the ratio of their throughputs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

QUESTIONS = (
    "How do I copy a list?",
    "Why is my program slow?",
    "What is a closure?",
    "How are strings joined quickly?",
    "Can a tuple be changed?",
    "What does yield do?",
    "How do I sort by two keys?",
    "When are objects freed?",
)


async def load(address: str, clients: int, requests: int) -> tuple[float, list[float], int]:
    """Return the seconds of all requests, each one's, and how many failed."""
    took: list[float] = []
    failed = 0
    left = iter(range(requests))

    async def one() -> None:
        nonlocal failed
        transport = httpx.AsyncHTTPTransport(uds=address)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=300) as client:
            for i in left:
                begin = time.perf_counter()
                body = {"input": f"{QUESTIONS[i % len(QUESTIONS)]} {i}", "input_type": "query", "encoding_format": "base64"}
                response = await client.post("/v1/embeddings", json=body)
                took.append(time.perf_counter() - begin)
                failed += response.status_code != 200

    begin = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - begin, took, failed


def measured(batching: bool, clients: int, requests: int) -> dict[str, float]:
    """Start a server, warm it, and load it."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        option = "--batching" if batching else "--no-batching"
        command = [str(Path(sys.executable).with_name("tp-retrieval")), "serve", "--host", f"unix:{address}"]
        with subprocess.Popen([*command, "--rerank", "none", option], stderr=subprocess.DEVNULL) as server:
            while not os.path.exists(address):
                if server.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.1)
            asyncio.run(load(address, clients, 2 * clients))
            seconds, took, failed = asyncio.run(load(address, clients, requests))
            server.terminate()
    cuts = statistics.quantiles(took, n=100)
    return {"requests_per_second": requests / seconds, "p50": cuts[49], "p99": cuts[98], "errors": failed}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--turns", type=int, default=3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of both servers' turns, and the ratio of their throughputs."""
    runs: dict[str, list[dict[str, float]]] = {"together": [], "each alone": []}
    for _ in range(options.turns):
        for name, of_name in runs.items():
            of_name.append(measured(name == "together", options.clients, options.requests))
            print(name, of_name[-1], flush=True)
    medians = {
        name: {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
        | {"errors": sum(run["errors"] for run in of_name)}
        for name, of_name in runs.items()
    }
    ratio = medians["together"]["requests_per_second"] / medians["each alone"]["requests_per_second"]
    return {"clients": options.clients, "requests": options.requests, "medians": medians, "ratio": ratio, "runs": runs}
