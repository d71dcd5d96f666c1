"""A result as JSON: figures, and with which command, on which machine, by which versions and code they were measured.

write(path, record(figures, command, measures, minutes))
digest(Path("tp_retrieval/embedding/forward/readout.py"))     # of what the file means, not of how it is worded
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results"
Record = dict[str, Any]
"""A JSON object."""

_VERSIONS = {"torch": "torch", "transformers": "transformers", "faiss": "faiss-cpu", "numpy": "numpy"}
_FLAGS = {"avx512f": "AVX-512", "amx_tile": "AMX"}


def record(figures: object, command: Sequence[str], measures: Iterable[str], minutes: float) -> Record:
    """Return a result: figures with their command, date, duration, machine, versions, and digests of the code."""
    return {
        "command": list(command),
        "date": date.today().isoformat(),
        "minutes": round(minutes, 1),
        "machine": machine(),
        "versions": versions(),
        "measures": digests(measures),
        "figures": figures,
    }


def machine() -> Record:
    """Return the processor, its cores, the memory in GiB, and the accelerator that torch has, or None."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n")]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = [name for flag, name in _FLAGS.items() if flag in facts.get("flags", "").split()]
    torch = sys.modules.get("torch")  # which a benchmark without a model need not have
    return {
        "processor": " ".join([facts.get("model name", platform.machine()), *flags]),
        "cores": len(os.sched_getaffinity(0)),
        "memory": round(psutil.virtual_memory().total / 2**30),
        "accelerator": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
    }


def versions() -> Record:
    """Return the versions of Python, of the libraries that compute, and of this package."""
    found: dict[str, str | None] = {}
    for name, package in _VERSIONS.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return {"python": platform.python_version(), **found, "tp_retrieval": ours}


def digests(measures: Iterable[str], root: Path = ROOT) -> dict[str, str | None]:
    """Return the digest of every file, and of every Python file of every folder; None for what is not there."""
    return {path.relative_to(root).as_posix(): digest(path) for name in measures for path in _files(root / name)}


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def digest(path: Path) -> str | None:
    """Return a digest of what a file means: Python without docstrings, comments and layout, JSON as parsed."""
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = "\n".join(_lines(ast.parse(text)))
    elif path.suffix == ".json":
        text = json.dumps(json.loads(text), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lines(node: ast.AST) -> Iterator[str]:
    """Yield a syntax tree as text that every version of Python gives alike: without fields that are empty."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str):
                continue  # a docstring
            if isinstance(node, ast.JoinedStr) and isinstance(item, ast.Constant):
                yield from str(item.value)  # by characters, since versions split the text of an f-string otherwise
                continue
            if isinstance(item, ast.AST):
                yield f"{name}("
                yield from _lines(item)
                yield ")"
            elif item is not None:
                yield f"{name}={item!r}"


def write(path: Path, result: Record) -> None:
    """Write a result, and the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def results(folder: Path = FOLDER) -> dict[str, Record]:
    """Return every result of a folder by its name."""
    files = sorted(path for path in folder.glob("*.json") if path.stem != "historical")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
