"""The table of this index beside other stores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.tables.markdown import table
from benchmarks.tables.scale import short

NAMES = {
    "tp_retrieval": "tp_retrieval",
    "faiss": "FAISS Flat",
    "chroma": "Chroma",
    "lancedb": "LanceDB, no index",
    "lancedb-ivf-pq": "LanceDB, IVF-PQ",
    "qdrant": "Qdrant local",
    "sqlite-vec": "sqlite-vec",
    "txtai": "txtai",
}
FRONT = ("tp_retrieval", "faiss", "chroma", "lancedb", "qdrant")
FILTERS = ("0.1%", "1%", "10%", "50%", "90%", "99%")


def stores(figures: Any) -> str:
    """Return a column for each store."""
    peers = figures["peers"]
    header = ["", *(" ".join([NAMES[name], *_version(figures["pins"][name])]) for name in peers)]
    rows: dict[str, Callable[[Any], str]] = {
        "added, rows/s": lambda one: short(one["add_rate"]),
        "build after adding, s": lambda one: short(one["build"]) if one["build"] > 0.001 else "–",
        "open to the first answer, s": lambda one: short(statistics.median(open_["open"] for open_ in one["openings"])),
        "search, median ms (recall)": partial(_search, kind="all"),
        f"at recall {figures['enough']}": lambda one: _search(one, "raised", figures["enough"]),
        **{f"filter that keeps {kept}, ms (recall)": partial(_search, kind=kept) for kept in FILTERS},
        "hybrid, ms": partial(_search, kind="hybrid"),
        "in one call, queries/s": lambda one: short(one["many"]["rate"]),
        "peak memory adding / searching, MB": lambda one: f"{short(one['peak_mb'])} / {short(one['many']['peak_mb'])}",
        "on disk, MB": lambda one: short(one["disk_mb"]),
        "killed while adding": partial(_kills, batch=figures["batch"]),
    }
    return table(header, [[title, *(_cell(read, one) for one in peers.values())] for title, read in rows.items()])


def front(figures: Any) -> str:
    """Return a row for each store that most would pick."""
    columns: dict[str, Callable[[Any], str]] = {
        "search, median ms (recall)": partial(_search, kind="all"),
        "filter that keeps 1%, ms": partial(_search, kind="1%"),
        "rows added a second": lambda one: short(one["add_rate"]),
        "peak memory adding, MB": lambda one: short(one["peak_mb"]),
        "killed while adding": partial(_kills, batch=figures["batch"]),
    }
    peers = {name: figures["peers"][name] for name in FRONT if name in figures["peers"]}
    return table(
        ["", *columns], [[NAMES[name], *(_cell(read, one) for read in columns.values())] for name, one in peers.items()]
    )


def _version(pins: list[str]) -> list[str]:
    return [pins[0].partition("==")[2]] if pins else []


def _cell(read: Callable[[Any], str], record: Any) -> str:
    try:
        return read(record)
    except (KeyError, ValueError, TypeError):  # the store has nothing of the kind, or failed before
        return "failed" if "failure" in record else "–"


def _search(record: Any, kind: str, least: float = 0) -> str:
    searched = record["searches"][kind]
    if searched.get("recall", 1) < least:
        return "–"
    return short(searched["p50_ms"]) + (f" ({searched['recall']:.3f})" if "recall" in searched else "")


def _kills(record: Any, batch: int) -> str:
    kills = record["kills"]
    if not kills:
        return "–"
    opened = [kill for kill in kills if "failure" not in kill]
    wrong = {
        "do not open": len(kills) - len(opened),
        "do not find": sum(kill["found"] < 1 for kill in opened),
        "half a batch": sum(kill["rows"] % batch > 0 for kill in opened),
    }
    lost = sum(max(0, kill["acknowledged"] - kill["rows"]) for kill in opened)
    return "; ".join(
        [f"{lost:,} rows lost", *(f"{count} of {len(kills)} {what}" for what, count in wrong.items() if count)]
    )


TABLES: Mapping[str, Callable[[Any], str]] = {"stores": stores, "front": front}
