"""Filters, verify and rebuild, run as a user would."""

import json

import pytest

from tp_retrieval.cli.index import _tell_time


@pytest.fixture
def index(run, docs, tmp_path, recipe):
    into = tmp_path / "index"
    code, _, err = run("index", docs, "--into", into, "--recipe", recipe, "--kind", "flat", "--chunk-tokens", 64)
    assert code == 0, err
    return into


def hits(run, *arguments):
    code, out, err = run("search", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["hits"]


def test_where_mmr_and_min_score(run, index):
    assert [hit["metadata"]["year"] for hit in hits(run, index, "moon", "--where", '{"year": {"$lte": 1969}}')] == [1969]
    assert hits(run, index, "moon", "--where", '{"kind": "star"}') == []
    found = hits(run, index, "folder", "--mode", "dense", "-k", 4)
    floor = found[1]["score"]
    assert hits(run, index, "folder", "--mode", "dense", "-k", 4, "--min-score", floor) == found[:2]
    diverse = hits(run, index, "folder", "--mode", "dense", "-k", 4, "--mmr", 0.1)
    assert diverse[0] == found[0]
    assert diverse != found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--where", "{year: 1}"], "--where: no JSON"),
        (["--where", "[1]"], "--where: expected a JSON object, got [1]"),
        (["--where", '{"year": {"$near": 1}}'], "where.year.$near: unknown operator"),
        (["--mmr", "2"], "mmr: 2.0 must be from 0 to 1"),
    ],
)
def test_a_wrong_condition_is_one_line(run, index, arguments, words):
    code, out, err = run("search", index, "moon", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_verify_names_what_is_damaged_and_repairs_it(run, index):
    code, out, _ = run("verify", index)
    assert code == 0
    assert out.endswith(" documents, 0 problems, 0 left\n")
    file = index / "index.sqlite"
    file.write_bytes(file.read_bytes() + b"more")
    code, _, err = run("search", index, "moon")
    assert (code, err.count("\n")) == (2, 1)
    assert f"tp-retrieval verify {index}" in err
    code, out, _ = run("verify", index, "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert "not those it was closed with" in found["problems"][0]
    code, out, _ = run("verify", index, "--repair")
    assert code == 0
    assert out.startswith("repaired: ")
    assert run("verify", index)[0] == 0
    assert hits(run, index, "moon")


def test_rebuild_changes_kind_and_map_and_embeds_nothing(run, index, monkeypatch):
    monkeypatch.setattr("tp_retrieval.Embedder.embed_documents", None)
    code, out, err = run("rebuild", index, "--kind", "hnsw", "--target-recall", 0.9, "--postprocess", "center", "--json")
    assert code == 0, err
    info = json.loads(out)
    assert (info["kind"], info["postprocess"], info["tuning"]) == ("hnsw", ["center"], None)
    code, _, err = run("rebuild", index, "--postprocess", "whiten:256")
    assert code == 2
    assert "needs 512 documents" in err
    assert "'whiten:x'" in run("rebuild", index, "--postprocess", "whiten:x")[2]
    assert "kind: 'fast' must be one of" in run("rebuild", index, "--kind", "fast")[2]


def test_what_is_chosen_at_creation_is_not_changed_in_silence(run, index, docs, recipe, tmp_path):
    cut = ("--chunk-tokens", 64)
    code, _, err = run("index", docs, "--into", index, "--kind", "hnsw")
    assert code == 2
    assert "has 'flat', asked for 'hnsw'; change it with `tp-retrieval rebuild`" in err
    assert "--tokenizer" in run("index", docs, "--into", index, "--tokenizer", "trigram")[2]
    assert run("index", docs, "--into", index, "--kind", "flat", *cut)[0] == 0
    other = tmp_path / "trigrams"
    assert run("index", docs, "--into", other, "--recipe", recipe, "--tokenizer", "trigram", *cut)[0] == 0
    assert json.loads(run("info", other, "--json")[1])["tokenizer"] == "trigram"
    assert hits(run, other, "atelli", "--mode", "lexical")[0]["text"] == "Moon\nThe moon is a satellite."


@pytest.mark.parametrize(
    ("exits", "seconds", "words"),
    [
        ([1, 29], 19, ""),
        ([1, 29], 21, "64 more chunks will take about 21 seconds\n"),
        ([1, 29], 400, "about 7 minutes; --recipe retrieval-fast reads one block of the model at most, for a new index\n"),
        ([0, None], 400, "about 7 minutes; --recipe retrieval-fast reads one block"),
        ([1], 400, "about 7 minutes\n"),
        ([], 400, "about 7 minutes\n"),
    ],
)
def test_index_says_how_long_it_will_take_and_names_the_faster_recipe(capsys, exits, seconds, words):
    _tell_time({"views": [{"exit": exit_} for exit_ in exits]}, 64, seconds)
    err = capsys.readouterr().err
    assert words in err
    assert bool(err) == bool(words)


def test_duplicates_are_named_and_removed_when_that_is_asked_for(run, index, tmp_path, recipe):
    texts = ["The moon goes round the earth.", "A glacier is a river of ice.", "The moon goes round the earth."]
    lines = [json.dumps({"id": f"line{i}", "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "more.jsonl").write_text("\n".join(lines))
    code, _, err = run("index", tmp_path / "more.jsonl", "--into", index)
    assert code == 0, err
    code, out, _ = run("duplicates", index, "--threshold", 0.9999, "--json")
    found = json.loads(out)
    of = {one["id"]: one["of"] for one in found["duplicates"]}  # the guide's chunks repeat themselves, too
    assert (of["line2"], found["removed"]) == ("line0", 0)
    assert all(0.9999 <= one["score"] <= 1 for one in found["duplicates"])
    code, out, _ = run("duplicates", index, "--threshold", 0.9999, "--delete")
    assert code == 0
    assert out.splitlines()[:-1] == [f"1.000 {id_}  is like  {other}" for id_, other in of.items()]
    assert out.splitlines()[-1] == f"{len(of)} of {found['documents']} documents, {len(of)} removed"
    code, out, _ = run("duplicates", index, "--threshold", 0.9999)
    assert out == f"0 of {found['documents'] - len(of)} documents, 0 removed\n"
    code, _, err = run("duplicates", index, "--threshold", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "threshold: 2.0 must be a cosine" in err


def test_raw_vectors_are_stored_in_half_precision_when_that_is_asked_for(run, docs, index, tmp_path, recipe):
    half = tmp_path / "half"
    code, _, err = run(
        "index", docs, "--into", half, "--recipe", recipe, "--raw", "float16", "--kind", "flat", "--chunk-tokens", 64
    )
    assert code == 0, err
    asked = ["moon", "--mode", "dense", "-k", 4]
    found, exact = hits(run, half, *asked), hits(run, index, *asked)
    assert [hit["text"] for hit in found] == [hit["text"] for hit in exact]
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in exact], abs=1e-3)
    code, _, err = run("index", docs, "--into", half, "--raw", "float32")
    assert code == 2
    assert "--raw" in err
    assert "change it with `tp-retrieval rebuild`" in err
    code, out, err = run("rebuild", half, "--raw", "float32", "--json")
    assert (code, json.loads(out)["raw"]) == (0, "float32"), err
