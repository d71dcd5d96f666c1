"""What the tests of commands share: a quick recipe, a folder of documents, and a way to run a command."""

import sys

import pytest

from tp_retrieval import Recipe
from tp_retrieval.cli import main as command
from tp_retrieval.embedding.model import source
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("Question: {text}", "Passage: {text}", [View(2, "mean")], max_tokens=128)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A shallow recipe, so that the embedded model is quick."""
    file = tmp_path_factory.mktemp("recipe") / "shallow.json"
    file.write_text(RECIPE.to_json())
    return file


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setattr(source, "_hub_has_an_address", lambda: False)  # a look-up is a socket, and they are blocked

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tp-retrieval", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as stop:
            command.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "guide.md").write_text(
        "# Guide\n\nWelcome.\n\n## Install\n\nRun the installer. It asks for a folder.\n\n```\n# no heading\n```\n\n"
        "## Remove\n\nDelete the folder. " + "The removal takes a while. " * 60
    )
    (folder / "faq.rst").write_text("FAQ\n===\n\nWhy is it slow?\n---------------\n\nBecause of the weather.\n")
    (folder / "sub" / "page.html").write_text(
        "<html><head><title>T</title></head><body><h1>Page</h1><script>var x</script>"
        "<p>Rivers run to the sea.</p></body></html>"
    )
    (folder / "plain.txt").write_text("Just a plain text about whales.")
    (folder / "rows.jsonl").write_text(
        '{"id": "r1", "title": "Moon", "text": "The moon is a satellite.", "year": 1969}\n\n'
        '{"text": "Mars is red.", "metadata": {"kind": "planet"}}\n'
    )
    (folder / "image.png").write_bytes(b"\x89PNG\0")
    (folder / ".hidden.md").write_text("# secret")
    return folder
