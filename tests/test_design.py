"""Tests that guard the house: what is exported, who imports whom, what an import costs, what the wheel holds."""

import ast
import graphlib
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import tp_retrieval
from tests.golden.public import public
from tp_retrieval import errors

ROOT = Path(__file__).parents[1]
LAYERS = [
    "errors",
    "types",
    "sqlite",
    "documents",
    "embedding",
    "caching",
    "indexing",
    "reranking",
    "answering",
    "evaluation",
    "client",
    "cli",
    "__main__",
]
HOME = {"faiss": {"kinds.py", "faiss_index.py", "rounded_rows.py"}, "sqlite3": {"database.py"}}
FOREIGN = {
    "torch": {"embedding", "reranking", "answering"},
    "transformers": {"embedding", "reranking", "answering"},
    "faiss": {"indexing"},
    "sqlite3": {"sqlite"},
}


def modules():
    for path in sorted((ROOT / "tp_retrieval").rglob("*.py")):
        parts = path.relative_to(ROOT / "tp_retrieval").parts
        yield path, parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("path", "layer"), [m for m in modules() if m[1] != "__init__"], ids=lambda v: str(v)[-40:])
def test_imports_point_one_way(path, layer):
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top in FOREIGN:
            assert layer in FOREIGN[top], f"{layer} imports {top}"
            assert path.name in HOME.get(top, {path.name}), f"{path.name} imports {top}"
        inner = rest.split(".")[0]
        if top == "tp_retrieval" and inner in LAYERS:
            assert LAYERS.index(inner) <= LAYERS.index(layer), f"{layer} imports {name}"


def dotted(path, root, package):
    return ".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")


def test_no_file_imports_another_in_a_circle():
    roots = {"tp_retrieval": "tp_retrieval", "integrations": "tp_retrieval.integrations"}
    files = {dotted(path, ROOT / root, name): path for root, name in roots.items() for path in (ROOT / root).rglob("*.py")}
    graph = {name: files.keys() & set(imported(path)) - {name} for name, path in files.items()}
    assert len(graph) > 100
    assert len(tuple(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


def test_no_folder_has_more_files_than_one_can_look_through():
    for root in ("tp_retrieval", "integrations"):
        for folder in (ROOT / root, *(path for path in (ROOT / root).rglob("*") if path.is_dir())):
            files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(files) <= (20 if folder.name == "cli" else 10), folder  # cli: a file a command


def test_mypy_reads_every_tracked_file_strictly():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert "exclude" not in settings
    assert not any(override.get("ignore_errors") for override in settings["overrides"])
    relaxed = {name for override in settings["overrides"] for name in override if name.startswith("allow_")}
    assert {tuple(o["module"]) for o in settings["overrides"] if relaxed & o.keys()} == {("tests.*",)}
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    folders = {*settings["files"], "integrations"}
    assert (ROOT / "tp_retrieval" / "integrations").resolve() == ROOT / "integrations"
    assert [name for name in listed if name.partition("/")[0] not in folders] == []
    assert len(listed) > 200


def test_the_public_names():
    assert sorted(tp_retrieval.__all__) == sorted(
        {
            "Answer",
            "Answerer",
            "AsyncClient",
            "CachedEmbedder",
            "Client",
            "Document",
            "Embedder",
            "Hit",
            "Index",
            "Recipe",
            "Reranker",
            "Template",
        }
        | {"index_files"}
        | {name for name, value in vars(errors).items() if isinstance(value, type)}
    )
    for name in tp_retrieval.__all__:
        assert getattr(tp_retrieval, name).__name__ == name
    assert dir(tp_retrieval) == sorted(tp_retrieval.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        tp_retrieval.nonsense  # noqa: B018


def test_every_error_is_one_of_ours_and_one_of_pythons():
    for name, value in vars(errors).items():
        if (
            isinstance(value, type)
            and issubclass(value, Exception)
            and name not in ("TPRetrievalError", "TruncationWarning")
        ):
            assert issubclass(value, errors.TPRetrievalError), name
            assert len(value.__bases__) == 2, name
            assert name in errors.__doc__, name


def test_importing_the_package_loads_nothing_heavy_and_is_fast():
    code = (
        "import sys, time; begin = time.perf_counter(); import tp_retrieval; took = time.perf_counter() - begin;"
        "heavy = {'torch', 'transformers', 'faiss', 'numpy', 'sqlite3'} & set(sys.modules); print(took, *heavy)"
    )
    took, *heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy == []
    assert float(took) < 0.2


def test_the_index_needs_no_torch(tmp_path):
    code = (
        "import sys; from tests.toy import ToyEmbedder; from tp_retrieval import Index;"
        f"index = Index.create({str(tmp_path / 'i')!r}, ToyEmbedder()); index.add(['a text']);"
        "print(index.search('text')[0].rank, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "1 False\n"


def test_the_package_neither_prints_nor_asserts_nor_unpickles():
    for path, _ in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "eval", "exec"), path
        assert not {"pickle", "marshal", "shelve"} & {name.split(".")[0] for name in imported(path)}, path


def test_the_wheel_holds_every_tracked_file_of_the_package(tmp_path):
    copy = tmp_path / "copy"  # so that no earlier build is in it
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "demo-index", "scratch-index")
    shutil.copytree(ROOT, copy, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, copy],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "tp_retrieval", "integrations", ":!tp_retrieval/integrations"],  # which is a link, for mypy
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    tracked = {name.replace("integrations/", "tp_retrieval/integrations/", 1) for name in listed}
    assert inside == tracked
    assert len(tracked) > 40


def lacking(recorded, present, path=""):
    """Yield what was recorded and is not there any more, or takes fewer parameters."""
    for name, value in recorded.items() if isinstance(recorded, dict) else ():
        if name not in present:
            yield f"{path}{name}"
        elif isinstance(value, dict):
            yield from lacking(value, present[name], f"{path}{name}.")
        elif value is not None:
            yield from (f"{path}{name}({one})" for one in value if one not in present[name])


def test_every_public_name_command_and_option_of_an_earlier_version_is_there():
    recorded = json.loads((ROOT / "tests" / "golden" / "public.json").read_text())
    present = public()
    assert len(recorded["tp_retrieval"]) > 20
    assert len(recorded["commands"]) > 15
    assert list(lacking(recorded, present)) == []
    del present["tp_retrieval"]["Index"]["add"]
    present["commands"]["search"].remove("--where")
    assert sorted(lacking(recorded, present)) == ["commands.search(--where)", "tp_retrieval.Index.add"]
