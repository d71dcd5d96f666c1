"""The commands `run`, `names`, `fill` and `check`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.results.pages import code_of, fill, problems
from benchmarks.results.record import FOLDER, record, write
from benchmarks.results.registry import BENCHMARKS


def main() -> None:
    """Do what the command says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure, and write benchmarks/results/NAME.json")
    names = running.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        names.add_parser(name, add_help=False, help=f"benchmarks/{benchmark.module}.py")
    commands.add_parser("names", help="list the results that need no model but the embedded one")
    commands.add_parser("fill", help="render the tables of README.md and docs from the results")
    commands.add_parser("check", help="list tables and results that are stale or edited; exit with 1 if there are any")
    words = sys.argv[1:]
    if words[:1] == ["run"] and len(words) > 1 and words[1] in BENCHMARKS:
        run(words[1], words[2:])
        return
    command = parser.parse_args().command
    if command == "names":
        print(*(name for name, benchmark in BENCHMARKS.items() if benchmark.model is None))
    elif command == "fill":
        print(*fill(), sep="\n")
    else:
        found = list(problems())
        print("\n".join(found) or "every table has its source")
        sys.exit(bool(found))


def run(name: str, words: list[str]) -> None:
    """Measure, and write the result with its command, which names no folder of this machine."""
    benchmark = BENCHMARKS[name]
    module = importlib.import_module(f"benchmarks.{benchmark.module}")
    places = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    places.add_argument("--data", type=Path, help="folder with ir/SET in BEIR's layout, sts/SET.tsv, rerank and corpora")
    places.add_argument("--model", help="hub id, folder or .gguf file; by default the embedded model")
    places.add_argument("--into", type=Path, default=FOLDER, help="folder of NAME.json")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.results run {name}", description=module.__doc__, parents=[places], allow_abbrev=False
    )
    parser.add_argument("--device", help="cpu, cuda; by default the fastest there is")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    module.add_options(parser)
    options = parser.parse_args([*benchmark.arguments, *words])
    model = Path(options.model or "").name
    if (benchmark.model or "") not in model:
        parser.error(f"--model: give the file of {benchmark.model}")
    said = [*(["--data", "DATA"] if options.data else []), *(["--model", model] if model else [])]
    command = ["python", "-m", "benchmarks.results", "run", name, *said, *places.parse_known_args(words)[1]]
    begin = time.monotonic()
    figures = module.measure(options)
    write(options.into / f"{name}.json", record(figures, command, code_of(name), (time.monotonic() - begin) / 60))


if __name__ == "__main__":
    main()
