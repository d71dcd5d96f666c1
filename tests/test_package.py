"""What is written about the package in several places agrees: versions, pins, and the paths that documents name."""

import re
import tomllib
from pathlib import Path

import pytest

import tp_retrieval

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("tests/", "tp_retrieval/", "integrations/", "benchmarks/", "examples/", "docs/", ".ci/")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_version_is_the_same_everywhere():
    assert tp_retrieval.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {PROJECT['version']} - 20" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_a_tested_version():
    extras = PROJECT["optional-dependencies"].values()
    asked = {canonical(re.match(r"[\w.-]+", line)[0]) for group in (PROJECT["dependencies"], *extras) for line in group}
    pinned = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert asked - {"tp-retrieval"} <= pinned


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/guarantees.md"])
def test_every_path_in_a_document_exists(document):
    """Paths from the root, in backticks, and the tests named in `file.py::test`."""
    spans = re.findall(r"`([^`\n]+)`", (ROOT / document).read_text())
    paths = [span for span in spans if span.startswith(FOLDERS) and not re.search(r"[ A-Z]{4}|[*<>]", span)]
    assert len(paths) > 10
    for span in paths:
        file, _, name = span.partition("::")
        assert (ROOT / file).exists(), span
        assert not name or re.search(rf"\b(def|class) {name}\b", (ROOT / file).read_text()), span
