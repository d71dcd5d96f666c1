"""Tables in Markdown between `<!-- results: NAME TABLE -->` and `<!-- /results -->`, rendered from results.

fill()            # writes what the JSON says
problems()        # what is stale, edited by hand, unused or without a source
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from benchmarks.results.record import ROOT, Record, digests, results
from benchmarks.results.registry import BENCHMARKS

_OPENING, _CLOSING = "<!-- results: ", "<!-- /results -->"
_BLOCK = re.compile(rf"{_OPENING}(\S+) (\S+) -->\n(.*?){_CLOSING}", re.DOTALL)
_TABLE = re.compile(r"^\|.*\n\|[-| :]+\n(?:\|.*\n?)+", re.MULTILINE)
_FIGURE = re.compile(r"\|\s*\**[+−-]?\d[\d,.]*\**[ ,(%|]")
HISTORICAL = "benchmarks/results/historical.json"
COMPLETE = ("README.md", "docs/results.md")
"""Pages where every table of figures has a source."""


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may have tables of results."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(name: str, table: str, result: Record) -> str:
    """Return a table in Markdown, and under it when, on what and how it was measured."""
    module = importlib.import_module(f"benchmarks.tables.{BENCHMARKS[name].module}")
    return f"\n{module.TABLES[table](result['figures']).strip()}\n\n{source(result)}\n\n"


def source(result: Record) -> str:
    """Return a line that says when, on what and by which command a result was measured."""
    machine, used = result["machine"], result["versions"]
    day = date.fromisoformat(result["date"])
    where = f"{machine['cores']} cores of {machine['processor']}"
    where = where if machine["accelerator"] is None else f"{machine['accelerator']}, {where}"
    libraries = ", ".join(f"{name} {used[name]}" for name in ("torch", "transformers", "faiss") if used[name])
    return f"*{day.day} {day:%B %Y}; {where}; {libraries}; {result['minutes']:g} minutes: `{' '.join(result['command'])}`*"


def fill(root: Path = ROOT) -> list[str]:
    """Render every marked table that has a result; return the pages that changed.

    What is marked and was not measured yet stays; historical tables that no page has any more leave their list.
    """
    known = results(root / "benchmarks" / "results")
    changed = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")

        def replaced(block: re.Match[str]) -> str:
            name, table, body = block.groups()
            body = rendered(name, table, known[name]) if name in known else body
            return f"{_OPENING}{name} {table} -->\n{body}{_CLOSING}"

        new = _BLOCK.sub(replaced, text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            changed.append(page.relative_to(root).as_posix())
    listed, there = historical(root), unmeasured(root)
    kept = [one for one in listed if (one["page"], one["digest"]) in there]
    if kept != listed:
        lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in kept)
        (root / HISTORICAL).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        changed.append(HISTORICAL)
    return changed


def historical(root: Path = ROOT) -> list[Record]:
    """Return the tables that are not measured again: page, header, commit of the measurement, digest of the text."""
    listed: list[Record] = json.loads((root / HISTORICAL).read_text(encoding="utf-8"))
    return listed


def unmeasured(root: Path = ROOT) -> dict[tuple[str, str], str]:
    """Return the headers of the tables of figures that no result renders, by page and digest."""
    known = results(root / "benchmarks" / "results")
    found: dict[tuple[str, str], str] = {}
    for name in COMPLETE:
        text = (root / name).read_text(encoding="utf-8")
        text = _BLOCK.sub(lambda block: "" if block.group(1) in known else block.group(3), text)
        found |= {(name, _digest(table)): table.split("\n")[0] for table in tables(text)}
    return found


def problems(root: Path = ROOT) -> Iterator[str]:
    """Yield what is wrong between the pages, the results, the code and the list of historical tables."""
    known = results(root / "benchmarks" / "results")
    listed = {(one["page"], one["digest"]) for one in historical(root)}
    used: set[str] = set()
    for page in pages(root):
        name, text = page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")
        blocks = _BLOCK.findall(text)
        used |= {result for result, _, _ in blocks}
        yield from (
            f"{name}: {problem}"
            for problem in _problems_of(text, blocks, known, {digest for on, digest in listed if on == name})
        )
    for result, record in known.items():
        if result not in BENCHMARKS:
            yield f"benchmarks/results/{result}.json: no benchmark of this name"
            continue
        if result not in used:
            yield f"benchmarks/results/{result}.json: no table is rendered from it"
        yield from (f"benchmarks/results/{result}.json: {stale}" for stale in _stale(result, record, root))
    there = unmeasured(root)
    yield from (f"{key[0]}: a table of figures without a source: {there[key]}" for key in there if key not in listed)
    yield from (f"{HISTORICAL}: {page} has no table {digest}" for page, digest in sorted(listed - there.keys()))


def _problems_of(
    text: str, blocks: list[tuple[str, str, str]], known: dict[str, Record], listed: set[str]
) -> Iterator[str]:
    if not len(blocks) == text.count(_OPENING) == text.count(_CLOSING):
        yield "a marker of results has no partner"
    for name, table, body in blocks:
        if name not in BENCHMARKS:
            yield f"{name} {table}: no benchmark of this name"
        elif name not in known and not ({_digest(one) for one in tables(body)} & listed):
            yield f"{name} {table}: there is no benchmarks/results/{name}.json"
        elif name in known and body != rendered(name, table, known[name]):
            yield f"{name} {table}: not what benchmarks/results/{name}.json gives; `make tables` writes that"


def _stale(name: str, result: Record, root: Path) -> Iterator[str]:
    """Yield the files that were other ones when a result was measured."""
    present, measured = digests(code_of(name), root), result["measures"]
    for path in sorted({*present, *measured}):
        if present.get(path) != measured.get(path):
            yield f"measured before {path} changed"


def code_of(name: str) -> list[str]:
    """Return the files and folders that a result's figures depend on."""
    benchmark = BENCHMARKS[name]
    return [f"benchmarks/{benchmark.module.replace('.', '/')}.py", *benchmark.measures]


def tables(text: str) -> list[str]:
    """Return the tables of a page that have figures."""
    return [table for table in _TABLE.findall(text) if _FIGURE.search("\n".join(table.split("\n")[2:]))]


def _digest(table: str) -> str:
    return hashlib.sha256(table.strip().encode()).hexdigest()[:16]
