"""Measure `tp-retrieval serve` under load, with requests computed together and each alone, in one run.

    python benchmarks/server.py --clients 32 --requests 640 --json results.json

Each client sends one short text after the other on its own connection. Two servers, one after the other by turns; the
medians of the turns, and the ratio of their throughputs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def measure(batching: bool, clients: int, requests: int) -> dict[str, float]:
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


def main() -> None:
    """Print a table; write JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"together": [], "each alone": []}
    for _ in range(options.turns):
        for name, runs in results.items():
            runs.append(measure(name == "together", options.clients, options.requests))
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        | {"errors": sum(r["errors"] for r in runs)}
        for name, runs in results.items()
    }
    ratio = medians["together"]["requests_per_second"] / medians["each alone"]["requests_per_second"]
    print(f"{'':12} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}")
    for name, one in medians.items():
        p50, p99 = 1000 * one["p50"], 1000 * one["p99"]
        print(f"{name:12} {one['requests_per_second']:11.1f} {p50:8.0f} {p99:8.0f} {one['errors']:7.0f}")
    print(f"together over each alone: {ratio:.2f}x")
    if options.json is not None:
        options.json.write_text(json.dumps({"medians": medians, "ratio": ratio, "runs": results}, indent=2))


if __name__ == "__main__":
    main()
