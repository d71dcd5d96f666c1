"""The commands, run as a user would; their mistakes are one line and exit code 2."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import RECIPE
from tp_retrieval import Embedder, Index


def test_index_search_info_and_an_incremental_second_run(run, docs, tmp_path, recipe, monkeypatch):
    index = tmp_path / "index"
    code, out, err = run("index", docs, "--into", index, "--recipe", recipe, "--chunk-tokens", 64, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["files"] == 5
    assert report["added"] == report["documents"] > 8

    with Index.open(index) as opened:
        documents = {d.id: d for d in opened}
    guide = [d for d in documents.values() if d.metadata["path"].endswith("guide.md")]
    original_text = (docs / "guide.md").read_text()
    assert [d.metadata["headings"] for d in guide[:3]] == [["Guide"], ["Guide", "Install"], ["Guide", "Remove"]]
    for document in guide:
        assert original_text[document.metadata["start"] : document.metadata["end"]] == document.text
    assert [d.metadata["chunk"] for d in guide] == list(range(len(guide)))
    assert len(guide) > 4
    text = " ".join(" ".join(d.text for d in guide).split())
    assert text == " ".join(original_text.split())
    assert documents["r1"].metadata["year"] == 1969
    assert documents["r1"].text == "Moon\nThe moon is a satellite."
    faq = next(d for d in documents.values() if d.metadata["path"].endswith("faq.rst") and "weather" in d.text)
    assert faq.metadata["headings"] == ["FAQ", "Why is it slow?"]
    page = next(d for d in documents.values() if d.metadata["path"].endswith("page.html"))
    assert "Rivers run to the sea." in page.text
    assert "var x" not in page.text
    assert page.metadata["headings"] == ["Page"]

    code, out, _ = run("search", index, "whales", "--mode", "lexical", "--json")
    (hit,) = json.loads(out)["hits"]
    assert hit["rank"] == 1
    assert hit["text"] == "Just a plain text about whales."
    assert hit["parts"] == {"lexical": hit["score"]}
    code, out, _ = run("search", index, "Which planet is red?", "-k", 2, "--json")
    assert code == 0
    assert len(json.loads(out)["hits"]) == 2
    code, out, _ = run("search", index, "whales", "-k", 1, "--mode", "lexical")
    assert "plain.txt" in out.replace("\n", "")
    assert "about whales" in out

    code, out, _ = run("info", index, "--json")
    info = json.loads(out)
    assert info["documents"] == report["documents"]
    assert info["recipe"] == RECIPE.to_dict()
    code, out, _ = run("info", index)
    assert "documents" in out

    embedded = []
    original = Embedder.embed_documents

    def counted(self, texts, **options):
        embedded.extend(texts)
        return original(self, texts, **options)

    monkeypatch.setattr(Embedder, "embed_documents", counted)
    again = json.loads(run("index", docs, "--into", index, "--chunk-tokens", 64, "--json")[1])
    assert (again["unchanged_files"], again["added"], again["removed"]) == (5, 0, 0)
    assert embedded == []

    (docs / "faq.rst").write_text("FAQ\n===\n\nIs it fast?\n-----------\n\nYes.\n")
    (docs / "plain.txt").unlink()
    again = json.loads(run("index", docs, "--into", index, "--chunk-tokens", 64, "--json")[1])
    assert (again["unchanged_files"], again["added"], again["removed"]) == (3, 1, 1)
    assert embedded == ["FAQ\n===\n\nIs it fast?\n-----------\n\nYes."]
    assert json.loads(run("search", index, "whales weather", "--mode", "lexical", "--json")[1])["hits"] == []


def test_ids_survive_a_renamed_file_and_are_never_taken_over(run, tmp_path, recipe):
    folder, index = tmp_path / "docs", tmp_path / "index"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": 0, "text": "zero"}\n{"id": "b", "text": "bee"}\n')
    arguments = ("index", folder, "--into", index, "--recipe", recipe, "--json")
    run(*arguments)
    (folder / "a.jsonl").rename(folder / "c.jsonl")
    assert json.loads(run(*arguments)[1])["documents"] == 2
    with Index.open(index) as opened:
        assert {d.id: Path(d.metadata["path"]).name for d in opened} == {"0": "c.jsonl", "b": "c.jsonl"}
    (folder / "d.jsonl").write_text('{"id": "b", "text": "another bee"}\n')
    code, _, err = run(*arguments)
    assert code == 2
    assert "d.jsonl: the id 'b' is taken by" in err
    with Index.open(index) as opened:
        assert [d.text for d in opened.get(["b"])] == ["bee"]


def test_another_map_than_the_index_has_is_refused(run, tmp_path, recipe):
    (tmp_path / "t.txt").write_text("text")
    run("index", tmp_path / "t.txt", "--into", tmp_path / "i", "--recipe", recipe)
    other = tmp_path / "other.json"
    other.write_text(recipe.read_text().replace('"none"', '"center"'))
    code, _, err = run("index", tmp_path / "t.txt", "--into", tmp_path / "i", "--recipe", other)
    assert code == 2
    assert "made by another recipe (views: stored" in err


def test_what_is_shown_is_text_not_markup(run, tmp_path, recipe):
    (tmp_path / "t.jsonl").write_text('{"text": "see [INST] and [/INST] here", "headings": 5}\n')
    marked = tmp_path / "marked.json"
    marked.write_text(recipe.read_text().replace("Question: {text}", "[INST] {text} [/INST]"))
    run("index", tmp_path / "t.jsonl", "--into", tmp_path / "i", "--recipe", marked)
    assert "[INST]{text}[/INST]" in "".join(run("info", tmp_path / "i")[1].split())
    assert "see [INST] and [/INST] here" in run("search", tmp_path / "i", "inst")[1]
    assert len(json.loads(run("search", tmp_path / "i", "inst", "-k", 10**20, "--json")[1])["hits"]) == 1


def test_an_interrupted_run_goes_on_where_it_stopped(run, docs, tmp_path, recipe, monkeypatch):
    index = tmp_path / "index"
    arguments = ("index", docs / "guide.md", "--into", index, "--recipe", recipe, "--chunk-tokens", 16, "--json")
    monkeypatch.setattr("tp_retrieval.indexing.importers.files._BATCH", 4)
    original, calls = Index.add, []

    def stop_at_third(self, documents, **options):
        calls.append(len(documents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, documents, **options)

    monkeypatch.setattr(Index, "add", stop_at_third)
    code, _, err = run(*arguments)
    assert code == 130
    assert err == "tp-retrieval: interrupted; what was indexed so far is kept\n"
    with Index.open(index) as opened:
        assert len(opened) == 8
    report = json.loads(run(*arguments)[1])
    assert report["added"] == report["documents"] - 8


def test_embed_writes_raw_views_of_the_role_asked_for(run, tmp_path, recipe):
    texts = ["A dog.", "", "Ein Hund\u2028mit Zeilentrenner"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    embedder = Embedder.from_pretrained(recipe=RECIPE, dtype="float32")
    for role, want in (("query", embedder.embed_queries(texts)), ("document", embedder.embed_documents(texts))):
        for name in ("texts.txt", "texts.jsonl"):
            output = tmp_path / "v.npy"
            code, out, err = run(
                "embed",
                tmp_path / name,
                "--role",
                role,
                "--output",
                output,
                "--recipe",
                recipe,
                "--dtype",
                "float32",
                "--json",
            )
            assert code == 0, err
            assert json.loads(out)["texts"] == 3
            got = np.load(output)
            assert got.dtype == np.float32
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.filterwarnings("default::tp_retrieval.errors.TruncationWarning")
def test_embed_tells_of_cut_texts_in_one_line(run, tmp_path, recipe):
    (tmp_path / "t.txt").write_text("dog " * 500)
    code, _, err = run("embed", tmp_path / "t.txt", "--role", "query", "--output", tmp_path / "v.npy", "--recipe", recipe)
    assert code == 0
    assert err.startswith("tp-retrieval: 1 of 1 texts were cut to max_tokens=128")
    assert err.count("\n") == 1


def make_files(folder):
    (folder / "empty").mkdir()
    (folder / "ok.txt").write_text("fine")
    (folder / "binary.txt").write_bytes(b"\x00\x01text")
    (folder / "latin.txt").write_bytes("Straße".encode("latin-1"))
    (folder / "odd.bin").write_bytes(b"x")
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (folder / "wrong.jsonl").write_text('{"text": "a"}\n\n{"txt": "b"}\n')
    (folder / "stop.json").write_text(
        json.dumps(RECIPE.to_dict() | {"query": "<PST> {text}", "prepend": {"kind": "tp", "start": 1, "stop": 99}})
    )
    (folder / "twice.jsonl").write_text('{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n')
    (folder / "nan.jsonl").write_text('{"text": "a", "n": NaN}\n')
    (folder / "half.jsonl").write_text('{"text": "a\\ud800"}\n')
    (folder / "full").mkdir()
    (folder / "taken.npy").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["index", "missing", "--into", "i"], ["missing", "no such file or folder"]),
        (["index", "empty", "--into", "i"], ["empty", "no file here ends in"]),
        (["index", "binary.txt", "--into", "i"], ["binary.txt", "binary file", "NUL byte at 0"]),
        (["index", "latin.txt", "--into", "i", "--encoding", "utf-8"], ["latin.txt", "not UTF-8", "0xdf"]),
        (["index", "latin.txt", "--into", "i", "--encoding", "utf-x"], ["latin.txt", "no such encoding 'utf-x'"]),
        (["index", "odd.bin", "--into", "i"], ["odd.bin", "no reader for .bin files"]),
        (["index", "ok.txt", "--into", "i", "--loader", "bin=cat"], ["--loader", "'bin=cat' must be .EXT=COMMAND"]),
        (["index", "broken.jsonl", "--into", "i"], ["broken.jsonl, line 2", "not JSON"]),
        (["index", "wrong.jsonl", "--into", "i"], ["wrong.jsonl, line 3", '"text"']),
        (["index", "twice.jsonl", "--into", "i", "--recipe", "RECIPE"], ["'1'", "twice.jsonl"]),
        (["index", "nan.jsonl", "--into", "i"], ["nan.jsonl, line 1", "NaN"]),
        (["index", "half.jsonl", "--into", "i"], ["half.jsonl, line 1", "U+D800"]),
        (["index", "x" * 300, "--into", "i"], ["no such file or folder"]),
        (["index", "ok.txt", "--into", "i", "--model", "no/such-model"], ["no/such-model", "pip install"]),
        (["search", "x" * 300, "query"], ["x" * 300]),
        (["index", "ok.txt", "--into", "full"], ["full", "holds other files"]),
        (["index", "ok.txt", "--into", "i", "--recipe", "stop.json"], ["stop.json", "prepend.stop: 99"]),
        (["index", "ok.txt", "--into", "i", "--recipe", "nonsense"], ["nonsense", "known are"]),
        (["index", "ok.txt", "--into", "i", "--model", "no/such.gguf"], ["such.gguf"]),
        (["search", "nowhere", "query"], ["nowhere", "index.sqlite is missing"]),
        (["info", "nowhere"], ["nowhere"]),
        (["embed", "missing.txt", "--role", "query", "--output", "v.npy"], ["missing.txt", "no such file"]),
        (["embed", "ok.txt", "--role", "query", "--output", "v.csv"], ["--output", ".npy"]),
        (["embed", "ok.txt", "--role", "query", "--output", "no/v.npy"], ["--output", "no folder"]),
        (["embed", "ok.txt", "--role", "query", "--output", "taken.npy"], ["--output", "taken.npy can't be written"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path, monkeypatch, recipe, arguments, words):
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(recipe if argument == "RECIPE" else argument for argument in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("tp-retrieval: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], "Missing argument 'index'"),
        (["index", "x"], "Missing option '--into'"),
        (["embed", "x", "--role", "poet", "--output", "v.npy"], "Invalid value for '--role'"),
        (["analyze", "x", "--texts", 1], "Invalid value for '--texts'"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_2(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"tp-retrieval: {words}")
    assert err.endswith("; see --help\n")
    assert err.count("\n") == 1


def test_no_command_shows_what_there_is_and_help_is_no_mistake(run):
    code, out, err = run()
    assert (code, "index" in out + err) == (2, True)
    code, out, err = run("search", "--help")
    assert (code, "--rerank" in out, err) == (0, True, "")


def test_the_version_is_that_of_the_installed_package(run):
    want = f"tp-retrieval {version('tp-retrieval')}\n"
    assert run("--version") == (0, want, "")
    code = [sys.executable, "-m", "tp_retrieval"]
    done = subprocess.run([*code, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, want, "")
    done = subprocess.run([*code, "info", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tp-retrieval: ")


def test_a_mistake_loses_nothing_that_was_indexed(run, tmp_path, recipe, monkeypatch):
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("index", "ok.txt", "--into", "i", "--recipe", recipe)[0] == 0
    for arguments in (
        ["index", "ok.txt", "broken.jsonl", "--into", "i"],
        ["index", "ok.txt", "--into", "i", "--recipe", "retrieval"],
        ["index", "missing", "--into", "i"],
    ):
        code, _, err = run(*arguments)
        assert code == 2, err
    assert "recipe.views: stored" in run("index", "ok.txt", "--into", "i", "--recipe", "retrieval")[2]
    assert len(json.loads(run("search", "i", "fine", "--json")[1])["hits"]) == 1
