"""What is published: the built distributions, installed where there is no clone, and the citation file."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST, LARGEST_FILE = 5_000_000, 1_000_000  # bytes of the source distribution, and of a file in it
MODEL = """
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained({folder!r}) for kind in (AutoModelForCausalLM, AutoTokenizer))
"""


def run(*command, cwd=ROOT, **environment):
    """Run a command as someone without the clone does, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    kept |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tracked():
    """Return the files that the repository tracks, as paths below it."""
    return run("git", "ls-files").split()


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The folder with the source distribution, and the wheel that was built from it, of the tracked files alone."""
    folder = tmp_path_factory.mktemp("release")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source")
    return folder / "dist"


@pytest.fixture(scope="session")
def unpacked(dist, tmp_path_factory):
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


@pytest.fixture(scope="session", params=["*.tar.gz", "*.whl"], ids=["sdist", "wheel"])
def installed(request, dist, tmp_path_factory):
    """The bin folder of a fresh environment with one distribution, which finds the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # minutes and gigabytes less
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--disable-pip-version-check")
    python, (file,) = folder / "bin" / "python", dist.glob(request.param)
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *options, file, cwd=dist)
    return folder / "bin"


def test_the_citation_file_is_valid_and_of_this_release():
    file = ROOT / "CITATION.cff"
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", file)
    (version, date) = re.search(
        r"^## (\d\S+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ).groups()
    assert version == PROJECT["version"]
    assert f"\ndate-released: {date}\n" in file.read_text()
    assert PROJECT["urls"]["Paper"] in file.read_text()


@pytest.mark.slow
def test_the_distributions_are_what_an_index_accepts(dist):
    names = {file.name for file in dist.iterdir()}
    version = PROJECT["version"]
    assert names == {f"tp_retrieval-{version}.tar.gz", f"tp_retrieval-{version}-py3-none-any.whl"}
    assert run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()).count("PASSED") == 2


@pytest.mark.slow
def test_the_source_holds_every_tracked_file_and_nothing_large(dist, unpacked):
    """With the tests, as Linux distributions and conda-forge run them; without what only a clone has use for."""
    (archive,) = dist.glob("*.tar.gz")
    assert archive.stat().st_size < LARGEST
    files = {str(path.relative_to(unpacked)): path.stat().st_size for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name, size in files.items() if size > LARGEST_FILE} == set()
    made = {name for name in files if name.startswith("tp_retrieval.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    in_a_clone = {name for name in tracked() if name.startswith(".")} | {"tp_retrieval/integrations"}  # a link, for mypy
    assert files.keys() - made == {*tracked()} - in_a_clone


@pytest.mark.slow
def test_the_tests_in_the_source_run(unpacked):
    (unpacked / "tp_retrieval" / "integrations").symlink_to("../integrations")  # as CONTRIBUTING says
    chosen = (
        "tests/embedding/test_recipe.py",
        "tests/indexing/search/test_filters.py",
        "tests/integrations/test_parquet.py",
    )
    printed = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, cwd=unpacked)
    assert re.search(r"^\d\d+ passed", printed, re.MULTILINE), printed


@pytest.mark.slow
def test_the_quick_start_of_the_readme_runs_from_an_installation(installed, smol_folder, tmp_path):
    where = run(installed / "python", "-c", "import tp_retrieval; print(tp_retrieval.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(installed.parent)
    assert run(installed / "tp-retrieval", "--version", cwd=tmp_path).split()[-1] == PROJECT["version"]
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0].replace("path/to/your-llm", str(smol_folder))
    (tmp_path / "start.py").write_text(MODEL.format(folder=str(smol_folder)) + code)
    printed = run(installed / "python", "start.py", cwd=tmp_path)
    assert "whales" in printed.lower()


@pytest.mark.slow
def test_the_first_commands_of_the_readme_run_from_an_installation(installed, tmp_path):
    lines = re.findall(r"^ *(?:\$ )?(tp-retrieval (?:index|search) .+?)(?:\s+# .*)?$", README, re.MULTILINE)
    index, search = (next(line for line in lines if line.split()[1] == name) for name in ("index", "search"))
    _, _, folder, *_ = shlex.split(index)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "release.md").write_text("# Releases\n\nTo roll back a release, press undo and wait.\n")
    (tmp_path / folder / "whales.md").write_text("# Whales\n\nWhales are mammals that live in the sea and breathe air.\n")
    run(installed / "tp-retrieval", *shlex.split(index)[1:], cwd=tmp_path)
    record = run(installed / "tp-retrieval", *shlex.split(search)[1:], "--json", cwd=tmp_path)
    assert "press undo and wait" in record
    assert "breathe air" in record
