"""`rerank`, and `search --rerank`."""

import json
from functools import partial
from typing import get_args

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Index, Reranker
from tp_retrieval.cli.output import Method
from tp_retrieval.reranking.reranker import METHODS

slow = partial(pytest.param, marks=pytest.mark.slow)
QUERY = "Which sea animal breathes air?"
TEXTS = ["Bread dough rises.", "Whales live in the sea and breathe air.", "Bread dough rises.", "[bold]An octopus[/bold]"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


@pytest.mark.parametrize("method", ["query-likelihood", slow("yes-no"), slow("choice"), "embedding"])
def test_rerank_prints_the_lines_of_a_file_best_first(run, file, method):
    code, out, err = run("rerank", QUERY, file, "--method", method, "--json")
    assert code == 0, err
    report = json.loads(out)
    want = Reranker.from_pretrained(method=method).score(QUERY, TEXTS)
    assert (report["query"], report["method"]) == (QUERY, method)
    assert [text["rank"] for text in report["texts"]] == [1, 2, 3, 4]
    assert [text["line"] - 1 for text in report["texts"]] == sorted(range(4), key=lambda i: -want[i])
    for text in report["texts"]:
        assert text["text"] == TEXTS[text["line"] - 1]
        assert text["score"] == pytest.approx(float(want[text["line"] - 1]), abs=1e-5)


def test_rerank_shows_the_first_ones_as_text(run, file):
    code, out, _ = run("rerank", QUERY, file, "-n", 1)
    assert code == 0
    assert "1. text 2" in out
    assert "Whales live in the sea" in out
    assert "2. " not in out
    assert "[bold]An octopus[/bold]" in run("rerank", "octopus", file)[1]


def test_the_methods_offered_are_those_there_are():
    assert list(get_args(Method)) == list(METHODS)


def test_rerank_of_an_empty_file_is_empty(run, tmp_path):
    (tmp_path / "none.txt").write_text("")
    assert json.loads(run("rerank", QUERY, tmp_path / "none.txt", "--json")[1])["texts"] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["query-likelihood", slow("embedding")])
def test_search_reranks_with_the_indexs_own_model(run, docs, tmp_path, recipe, method):
    run("index", docs, "--into", tmp_path / "i", "--recipe", recipe, "--chunk-tokens", 64)
    code, out, err = run("search", tmp_path / "i", "whales", "-k", 3, "--rerank", method, "--json")
    assert code == 0, err
    hits = json.loads(out)["hits"]
    with Index.open(tmp_path / "i") as index:
        embedder = index.embedder if method != "embedding" else index.embedder.with_recipe("sts")
        want = index.search("whales", 3, rerank=Reranker(embedder, method=method))
    assert [hit["id"] for hit in hits] == [hit.document.id for hit in want]
    assert hits[0]["parts"].keys() == {"dense", "lexical", "retrieval", "rerank"}
    assert "rerank" in run("search", tmp_path / "i", "whales", "--rerank", method)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rerank", QUERY, "nowhere.txt"], "nowhere.txt: no such file"),
        (["rerank", QUERY, "{file}", "--recipe", "sts"], "--recipe: only the method embedding follows one"),
        (["rerank", QUERY, "{file}", "--model", "no/such-model"], "can't load the model"),
    ],
)
def test_mistakes_are_one_line(run, file, arguments, message):
    code, out, err = run(*[str(file) if argument == "{file}" else argument for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_index_without_a_language_model_can_not_rerank(run, tmp_path, monkeypatch):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add(["a dog"])
    monkeypatch.setattr(Index, "embedder", ToyEmbedder())
    code, _, err = run("search", tmp_path / "i", "dog", "--rerank", "yes-no")
    assert code == 2
    assert "--rerank: the vectors were made by an embedder without a language model" in err
