"""The workflows for hosted CI: valid, without known weaknesses, and only with commands that are there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_package import PROJECT

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github"
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((FOLDER / "workflows").glob("*.yml"))}


def lint(folder):
    """Return the exit code and the words of zizmor, which looks for weaknesses; without network."""
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-config", "--min-severity", "medium", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def schema(name, files):
    """Return the exit code and the words of check-jsonschema, by a schema that it brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", name, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_there_is_one_for_each_purpose():
    assert WORKFLOWS.keys() == {"test", "docs", "publish"}


@pytest.mark.parametrize("name", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflows_fit_their_schema_and_end_in_time(name, tmp_path):
    files = sorted((FOLDER / "workflows").glob("*.yml"))
    code, words = schema(name, files)
    assert code == 0, words
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(files[0].read_text().replace("    timeout-minutes:", "    timeout-hours:"))
    assert schema(name, [wrong])[0] == 1


def test_the_shared_steps_fit_their_schema():
    code, words = schema("vendor.github-actions", (FOLDER / "actions").rglob("action.yml"))
    assert code == 0, words


def test_no_weakness_is_known(tmp_path):
    code, words = lint(FOLDER)
    assert code == 0, words
    assert "No findings to report" in words
    copy = tmp_path / ".github"
    shutil.copytree(FOLDER, copy)
    file = copy / "workflows" / "publish.yml"
    file.write_text(re.sub(r"(gh-action-pypi-publish)@\w+ # \S+", r"\1@release/v1", file.read_text()))
    code, words = lint(copy)
    assert code > 0
    assert "unpinned-uses" in words


def test_the_python_versions_are_those_that_the_package_names():
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_every_target_is_one_of_the_makefile():
    texts = [file.read_text() for file in FOLDER.rglob("*.yml")]
    targets = {name for text in texts for name in re.findall(r"\bmake ([\w-]+)$", text, re.MULTILINE)}
    assert {"check", "test", "test-slow"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_only_the_last_step_of_a_release_may_publish_and_no_token_is_stored():
    jobs = WORKFLOWS["publish"]["jobs"]
    assert {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})} == {"publish"}
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert "secrets." not in "".join(file.read_text() for file in FOLDER.rglob("*.yml"))
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in WORKFLOWS.values())
