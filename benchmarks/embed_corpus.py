"""Measure `tp-retrieval embed-corpus` on Ray beside one process, in one run, with a worker killed half-way.

    python benchmarks/embed_corpus.py PASSAGES.jsonl --rows 2000 --workers 2 --json results.json

Both embed the same passages with the default model and recipe. The Parquet must hold each id once and equal the single
process within 1e-5 in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tp_retrieval import Embedder
from tp_retrieval.integrations import parquet


def workers() -> list[int]:
    """Return the ids of Ray's embedding processes."""
    ids = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::") and b"_Worker" in title:
                ids.append(int(process.name))
    return ids


def main() -> None:
    """Print both throughputs; exit with an error if the vectors or ids differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-rows", type=int, default=100)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.passages.read_text(encoding="utf-8").splitlines()[: options.rows]]
    texts = [row["text"] for row in rows]

    begin = time.perf_counter()
    embedder = Embedder.from_pretrained(dtype="float32")
    want = embedder.embed_documents(texts)
    alone = time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as folder:
        corpus, output = Path(folder) / "corpus.jsonl", Path(folder) / "out"
        corpus.write_text("".join(json.dumps({"id": f"p{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
        command = [str(Path(sys.executable).with_name("tp-retrieval")), "embed-corpus", str(corpus), "--into", str(output)]
        command += ["--workers", str(options.workers), "--shard-rows", str(options.shard_rows), "--dtype", "float32"]
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            while not options.no_kill and len(list(output.glob("*.parquet"))) < len(texts) / options.shard_rows / 2:
                time.sleep(0.1)
            if not options.no_kill:
                os.kill(workers()[0], signal.SIGKILL)
        together = time.perf_counter() - begin
        shards = list(parquet.read_shards(output))
    ids = [document.id for shard in shards for document in shard.documents]
    gap = float(np.abs(np.concatenate([shard.vectors for shard in shards]) - want).max())
    scale = float(np.abs(want).max())
    result = {
        "rows": len(texts),
        "alone_per_second": len(texts) / alone,
        "ray_per_second": len(texts) / together,
        "ratio": alone / together,
        "each_id_once": ids == [f"p{i}" for i in range(len(texts))],
        "largest_difference": gap,
        "largest_value": scale,
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2))
    if not result["each_id_once"] or gap > 1e-5 * max(scale, 1):
        raise SystemExit("the shards are not what one process gives")


if __name__ == "__main__":
    main()
