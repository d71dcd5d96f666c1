"""The files for deployment: their commands are ones that the program takes, and nothing runs with rights it needs not."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from tp_retrieval.cli.main import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = ROOT / "docs/tp-retrieval.service"


def instructions():
    """Return the instructions of the Dockerfile, with lines that go on joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def parsed(arguments):
    """Return the options that the program reads from arguments of `serve`; raise for one that it does not take."""
    command = typer.main.get_command(app)
    name, *rest = arguments
    assert name == "serve"
    return command.commands["serve"].make_context("serve", rest).params


def test_the_image_serves_without_rights_and_tells_its_health():
    given = instructions()
    stages = [value for name, value in given if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.1\d-slim( AS \w+)?", stage) for stage in stages), "pinned, and small"
    last = given[max(i for i, (name, _) in enumerate(given) if name == "FROM") :]
    names = [name for name, _ in last]
    assert dict(last)["USER"] == "retrieval"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert {"HEALTHCHECK", "VOLUME", "EXPOSE"} <= {*names}
    assert json.loads(dict(last)["ENTRYPOINT"]) == ["/app/bin/tp-retrieval"]
    options = parsed(json.loads(dict(last)["CMD"]))
    assert (options["host"], options["port"], str(options["data"])) == ("0.0.0.0", 8000, "/data/indexes")
    for name, value in given:
        assert name in (
            "FROM",
            "WORKDIR",
            "COPY",
            "RUN",
            "USER",
            "ENV",
            "VOLUME",
            "EXPOSE",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        )
        if name == "COPY" and "--from" not in value:
            assert all((ROOT / source).exists() for source in value.split()[:-1])


def test_the_image_has_the_extras_that_there_are():
    (extras,) = re.findall(r'"\.\[([\w,-]+)\]"', DOCKERFILE)
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*extras.split(",")} <= known.keys()


def test_compose_runs_it_behind_a_proxy_and_read_only():
    services = yaml.safe_load((ROOT / "docs/compose.yaml").read_text())["services"]
    search, proxy = services["search"], services["proxy"]
    assert "ports" not in search, "only the proxy is reached from outside"
    assert search["read_only"]
    assert search["cap_drop"] == ["ALL"]
    assert "data:/data" in search["volumes"]
    assert proxy["depends_on"]["search"]["condition"] == "service_healthy"
    assert (ROOT / "docs" / search["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_the_unit_starts_what_the_program_takes():
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    command, *arguments = shlex.split(service["ExecStart"])
    assert command.endswith("/tp-retrieval")
    options = parsed(arguments)
    assert options["host"] == "127.0.0.1"
    assert str(options["data"]) == f"/var/lib/{service['StateDirectory']}"
    assert int(service["TimeoutStopSec"]) > options["graceful_timeout"]
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong(tmp_path):
    text = UNIT.read_text().replace("/opt/tp-retrieval/bin/tp-retrieval", "/bin/true")
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    assert UNIT.name not in done.stderr


def has_builder():
    return shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not has_builder(), reason="no builder of images here")
def test_the_image_is_built_and_answers():
    subprocess.run(["docker", "build", "-q", "-t", "tp-retrieval-test", str(ROOT)], check=True)
    done = subprocess.run(
        ["docker", "run", "--rm", "tp-retrieval-test", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in done.stdout
