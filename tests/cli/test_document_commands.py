"""Documents listed, shown, added and removed from the command line, and what a search shows of them."""

import io
import json
import re
import sys
import threading
import time
from contextlib import suppress

import pytest

from tp_retrieval import Index, TPRetrievalError
from tp_retrieval.cli.index import ProgressLines, summary_of
from tp_retrieval.cli.output import excerpt_lines
from tp_retrieval.documents.folders import SkippedFile
from tp_retrieval.indexing.search.filters import keys_of


@pytest.fixture(scope="module")
def made(tmp_path_factory, recipe):
    """An index of three documents, which tests copy."""
    from tests.cli.conftest import RECIPE
    from tp_retrieval import Document, Embedder

    folder = tmp_path_factory.mktemp("made") / "index"
    with Index.create(folder, Embedder.from_pretrained(recipe=RECIPE)) as index:
        index.add(
            [
                Document("Whales sing under water.", {"kind": "animal", "size": {"tons": 30}}, "whale"),
                Document("Larks sing at dawn.\nThey rise while they sing.", {"kind": "animal"}, "lark"),
                Document("Granite is a hard rock.", {"kind": "stone"}, "granite"),
            ]
        )
    return folder


@pytest.fixture
def index(made, tmp_path):
    import shutil

    return shutil.copytree(made, tmp_path / "index")


def test_list_shows_ids_and_how_texts_begin(run, index):
    assert run("list", index)[1].splitlines() == [
        "whale  Whales sing under water.",
        "lark  Larks sing at dawn. They rise while they sing.",
        "granite  Granite is a hard rock.",
        "3 of 3 documents",
    ]
    assert run("list", index, "--where", '{"kind": "animal"}', "--offset", 1)[1].splitlines()[0].startswith("lark")
    listed = json.loads(run("list", index, "--limit", 1, "--json")[1])
    assert listed == {
        "documents": 3,
        "listed": [
            {"id": "whale", "text": "Whales sing under water.", "metadata": {"kind": "animal", "size": {"tons": 30}}}
        ],
    }


def test_get_shows_documents_and_names_missing_ones(run, index):
    assert run("get", index, "lark")[1] == "lark\nkind: animal\nLarks sing at dawn.\nThey rise while they sing.\n\n"
    code, out, err = run("get", index, "granite", "gold", "--json")
    assert (code, err) == (1, "tp-retrieval: no document 'gold'\n")
    assert [document["id"] for document in json.loads(out)] == ["granite"]


def test_add_takes_an_argument_stdin_or_lines(run, index, monkeypatch):
    assert run("add", index, "Otters hold hands.", "--id", "otter", "--metadata", '{"kind": "animal"}')[:2] == (
        0,
        "otter\n",
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("Slate splits.\n"))
    code, out, _ = run("add", index, "--json")
    added = json.loads(out)
    assert (code, added["documents"]) == (0, 5)
    lines = [{"text": "Basalt is black.", "id": "basalt", "year": 1}, {"text": "Chalk is white.", "id": "chalk"}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, lines))))
    assert run("add", index, "--jsonl")[1] == "basalt\nchalk\n"
    with Index.open(index) as opened:
        stored = {document.id: (document.text, dict(document.metadata)) for document in opened}
        assert stored["otter"] == ("Otters hold hands.", {"kind": "animal"})
        assert stored[added["ids"][0]] == ("Slate splits.\n", {})
        assert stored["basalt"] == ("Basalt is black.", {"year": 1})
        assert opened.search("hands of otters", 1)[0].document.id == "otter"


def test_delete_takes_ids_or_a_filter(run, index):
    assert run("delete", index, "whale", "unknown")[1] == "1 removed, 2 documents\n"
    assert json.loads(run("delete", index, "--where", '{"kind": "stone"}', "--json")[1]) == {"removed": 1, "documents": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delete"], "give ids, --where or --all"),
        (["delete", "whale", "--all"], "give ids, --where or --all"),
        (["add", " "], "text: there is none"),
        (["add", "x", "--jsonl"], "--jsonl: texts, ids and metadata are in the lines of stdin"),
        (["add", "x", "--metadata", "[1]"], "--metadata: expected a JSON object"),
        (["search", "rock", "--expand", "much"], "--expand: 'much' must be a number of chunks or section"),
    ],
)
def test_mistakes_are_one_line(run, index, arguments, words):
    code, out, err = run(arguments[0], index, *arguments[1:])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize("command", [["search", "rock"], ["list"], ["delete"]])
def test_a_filter_with_a_key_that_no_document_has_is_named(run, index, command):
    where = '{"$or": [{"sort": 1}, {"$not": {"kind": {"$exists": true}}}, {"size.tons": 99}]}'
    code, _, err = run(command[0], index, *command[1:], "--where", where)
    assert (code, err) == (0, "tp-retrieval: --where: no document has 'sort'; there are kind, size, size.tons\n")
    assert run("list", index, "--where", '{"kind": "gas"}')[2] == ""


def test_the_keys_of_a_filter():
    where = {"a": 1, "$and": [{"b.c": {"$gt": 1}}, {"$not": {"d": {"$not": {"$gt": 1}}}}], "$or": [{"e": 1}]}
    assert keys_of(where) == {"a", "b.c", "d", "e"}


def test_a_search_shows_place_and_matching_lines_unwrapped(run, docs, tmp_path, recipe, monkeypatch):
    into = tmp_path / "index"
    (docs / "tool.py").write_text("import os\n\n\ndef sharpen(blade):\n    if blade:\n        return os.name\n")
    long = "An unusually long line about whetstones " * 10
    (docs / "stone.txt").write_text("First.\n" * 20 + long)
    run("index", docs, "--into", into, "--recipe", recipe, "--chunk-tokens", 64)
    monkeypatch.chdir(tmp_path)
    out = run("search", into, "sharpen a blade", "-k", 1, "--mode", "lexical")[1]
    assert out.splitlines()[2:] == [
        "1. docs/tool.py:4 › sharpen",
        out.splitlines()[3],
        "def sharpen(blade):",
        "    if blade:",
        "        return os.name",
    ]
    out = run("search", into, "whetstones", "-k", 1, "--mode", "lexical")[1]
    assert out.splitlines()[2] == "1. docs/stone.txt:21"
    assert long.startswith(out.splitlines()[4])  # one line, not wrapped, and the one that matched
    assert len(out.splitlines()[4]) > 120
    (hit,) = json.loads(run("search", into, "installer", "-k", 1, "--mode", "lexical", "--expand", "section", "--json")[1])[
        "hits"
    ]
    assert hit["passage"].startswith("## Install\n\nRun the installer.")
    grouped = json.loads(run("search", into, "folder", "-k", 9, "--group-by", "path", "--json")[1])["hits"]
    paths = [hit["metadata"]["path"] for hit in grouped]
    assert len(paths) == len({*paths}) == 7


def test_a_search_reads_no_more_of_the_index_than_it_must_and_leaves_addresses_alone(run, index, monkeypatch):
    run("add", index, "Basalt is black.", "--metadata", '{"path": "https://stones.example/basalt//"}')
    monkeypatch.setattr(Index, "info", None)  # which may read every text
    out = run("search", index, "basalt", "-k", 1, "--mode", "lexical")[1]
    assert out.splitlines()[2] == "1. https://stones.example/basalt//"


def test_the_lines_of_an_excerpt():
    text = "\n".join(["intro", "===", "", *(f"    line {i}" for i in range(30)), "    the needle here", "    end"])
    assert excerpt_lines(text, []) == ["intro", *(f"    line {i}" for i in range(7))]
    assert "the needle here" in excerpt_lines(text, ["needle"])
    assert excerpt_lines("", ["x"]) == []
    assert excerpt_lines("\n".join(["word " * 90, "word " * 90]), [])[-1].endswith(" …")


def test_skipped_files_are_counted_by_kind():
    from pathlib import Path

    skipped = [
        SkippedFile(Path("a.mp4"), "no reader for .mp4"),
        SkippedFile(Path("b.MP4"), "no reader for .mp4"),
        SkippedFile(Path("c.pdf"), "pypdfium2 is not installed. Run: pip install 'tp-retrieval[files]'"),
        SkippedFile(Path("d.txt"), "a binary file"),
    ]
    assert summary_of(skipped) == "2 .mp4, 1 .pdf, 1 unreadable; for some of them: pip install 'tp-retrieval[files]'"


def test_skipped_files_are_counted_and_named_when_asked(run, docs, tmp_path, recipe):
    (docs / "broken.jsonl").write_text("{")
    arguments = ("index", docs, "--into", tmp_path / "index", "--recipe", recipe, "--chunk-tokens", 64)
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "1 .png, 1 unreadable (names with -v)" in out
    out = re.sub(r"\s+", " ", run(*arguments, "-v")[1])
    assert "image.png: no reader for .png" in out
    assert "broken.jsonl: line 1: not JSON" in out.replace("broken.jsonl, line 1", "broken.jsonl: line 1")
    assert "1 unreadable" in out
    skipped = json.loads(run(*arguments, "--json")[1])["skipped"]
    assert {file["path"].rpartition("/")[2] for file in skipped} == {"image.png", "broken.jsonl"}
    code, _, err = run(*arguments, "--strict")
    assert (code, err.count("\n")) == (2, 1)
    assert "broken.jsonl, line 1: not JSON" in err


def test_lines_of_progress_without_a_terminal(capsys, monkeypatch):
    clock = iter([0.0, *(20.0 * i for i in range(1, 9))])
    monkeypatch.setattr("tp_retrieval.cli.index.time.monotonic", lambda: next(clock))
    lines = ProgressLines({"views": [{"exit": 1}]})
    for done in range(64, 513, 64):
        lines.show(done, 512, 0.5)
    assert capsys.readouterr().err.splitlines() == [
        "tp-retrieval: 384 more chunks will take about 3 minutes",
        "tp-retrieval: 192 of 512 chunks, about 3 minutes left",
        "tp-retrieval: 320 of 512 chunks, about 96 seconds left",
        "tp-retrieval: 448 of 512 chunks, about 32 seconds left",
    ]


@pytest.mark.slow
def test_watch_follows_changes_until_it_is_interrupted(run, docs, tmp_path, recipe):
    import signal

    into = tmp_path / "index"

    def texts():
        with suppress(TPRetrievalError), Index.open(into) as opened:  # while it is being made it can't be opened
            return " ".join(document.text for document in opened)
        return ""

    def wait_until(holds):
        deadline = time.monotonic() + 90
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.2)

    def change():
        try:
            wait_until(lambda: "whales" in texts())
            time.sleep(2)  # until it watches
            (docs / "new.md").write_text("fresh news")
            wait_until(lambda: "fresh" in texts())
            (docs / "new.md").unlink()
            wait_until(lambda: "fresh" not in texts())
            time.sleep(1)  # until the update has ended
        finally:
            signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=change)
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is where tests run in the background
    try:
        thread.start()
        code, out, err = run("index", docs, "--into", into, "--recipe", recipe, "--chunk-tokens", 64, "--watch", "--json")
        thread.join()
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert code == 0
    assert "watching; Ctrl-C ends it" in err
    reports = [json.loads(part + "}") for part in re.split(r"(?<=\n)\}\n", out) if part.strip()]
    assert [(report["added"], report["removed"]) for report in reports][1:] == [(1, 0), (0, 1)]


def test_commands_see_one_namespace(run, index, tmp_path):
    assert run("add", index, "Larks of theirs sing.", "--id", "lark", "--namespace", "theirs")[1] == "lark\n"
    assert run("list", index, "--namespace", "theirs")[1].splitlines() == [
        "lark  Larks of theirs sing.",
        "1 of 1 documents",
    ]
    assert run("list", index)[1].splitlines()[-1] == "3 of 3 documents"
    assert "of theirs" in run("get", index, "lark", "--namespace", "theirs")[1]
    hits = json.loads(run("search", index, "sing", "--namespace", "theirs", "--json")[1])["hits"]
    assert [hit["text"] for hit in hits] == ["Larks of theirs sing."]
    assert len(json.loads(run("search", index, "sing", "--json")[1])["hits"]) == 3
    assert re.search(r"namespaces +\(none\) 3, theirs 1", run("info", index)[1])
    (tmp_path / "a.txt").write_text("A lark of a file.")
    assert run("index", tmp_path / "a.txt", "--into", index, "--namespace", "theirs")[0] == 0
    assert json.loads(run("info", index, "--json")[1])["namespaces"] == {"": 3, "theirs": 2}
    assert run("duplicates", index, "--namespace", "theirs", "--json")[0] == 0
    assert run("delete", index, "lark", "--namespace", "theirs")[1] == "1 removed, 1 documents\n"
    assert run("delete", index, "--all", "--namespace", "theirs")[1] == "1 removed, 0 documents\n"
    assert run("list", index)[1].splitlines()[-1] == "3 of 3 documents"
