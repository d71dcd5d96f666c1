"""`evaluate`, `ablate` and `tune` on small labelled sets, with a tiny random model."""

import json
import sys

import pytest

from tests.evaluation.test_datasets import write_folder
from tp_retrieval import Embedder, Recipe, Reranker
from tp_retrieval.cli.tune import dataset_of
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation.datasets import read_retrieval, read_sts
from tp_retrieval.evaluation.evaluate import evaluate_retrieval, evaluate_sts

WORDS = ["whale", "bread", "bridge", "guitar", "river", "treaty", "engine", "lamp", "garden", "ticket", "mirror", "rope"]


@pytest.fixture(scope="module")
def model(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "shallow.json"
    file.write_text(Recipe('Q : "{text}"', 'P : "{text}"', [View(2, "mean")]).to_json())
    return file


@pytest.fixture
def faq(tmp_path):
    documents = {
        f"d{i}": {"title": f"The {word}", "text": f"About a {word} and its {i} uses."} for i, word in enumerate(WORDS)
    }
    queries = {f"q{i}": f"What is a {word}?" for i, word in enumerate(WORDS)}
    return write_folder(tmp_path / "faq", documents, queries, [(f"q{i}", f"d{i}", 1) for i in range(12)])


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.tsv"
    rows = [f"all\t{(i * 7) % 5}\tA {WORDS[i % 12]}.\tThe {WORDS[(i * 5) % 12]} {i}." for i in range(24)]
    file.write_text("\n".join(["subset\tscore\tsentence1\tsentence2", *rows]) + "\n")
    return file


def test_evaluate_sts(run, pairs, model, shallow):
    code, out, err = run("evaluate", "sts", pairs, "--model", model, "--recipe", shallow, "--json")
    assert code == 0, err
    (found,) = json.loads(out)["datasets"]["pairs"].values()
    want = evaluate_sts(Embedder.from_pretrained(model, recipe=shallow), read_sts(pairs)).spearman
    assert found["spearman"] == {"value": round(want.value, 2), "low": round(want.low, 2), "high": round(want.high, 2)}
    code, out, _ = run("evaluate", "sts", pairs, "--model", model, "--recipe", shallow)
    assert f"{want.value:.1f}" in out


def test_evaluate_retrieval_with_a_trained_model_beside(run, faq, model, shallow, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(model))
    trained = tmp_path / "trained"
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(trained))
    arguments = ("evaluate", "retrieval", faq, "--model", model, "--recipe", shallow, "--against", trained)
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)["datasets"]["faq"]
    want = evaluate_retrieval(Embedder.from_pretrained(model, recipe=shallow), read_retrieval(faq))
    for way in ("bm25", "dense", "hybrid"):
        assert set(found[way]) == {"ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100"}
        assert found[way]["ndcg@10"]["value"] == pytest.approx(want.estimate(way, "ndcg@10").value, abs=0.01)
        assert found[way]["ndcg@10"]["low"] <= found[way]["ndcg@10"]["value"] <= found[way]["ndcg@10"]["high"]
    assert found["bm25"]["ndcg@10"]["value"] > 90  # every question names what it asks for
    against = found["against"][str(trained)]
    assert set(against) == {"dense", "hybrid"}
    assert found["gain"]["ndcg@10"]["value"] == pytest.approx(want.gain("hybrid", "bm25", "ndcg@10").value, abs=0.01)
    code, out, _ = run(*arguments)
    assert "hybrid, trained" in out
    assert "hybrid over BM25" in out


def test_evaluate_retrieval_reranks_the_hybrid_searchs_hits(run, faq, model, shallow):
    arguments = ("evaluate", "retrieval", faq, "--model", model, "--recipe", shallow, "--rerank", "query-likelihood")
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)["datasets"]["faq"]
    embedder = Embedder.from_pretrained(model, recipe=shallow)
    want = evaluate_retrieval(embedder, read_retrieval(faq), reranker=Reranker(embedder))
    assert found["reranked"]["ndcg@10"]["value"] == pytest.approx(want.estimate("reranked", "ndcg@10").value, abs=0.01)
    gain = want.gain("reranked", "hybrid", "ndcg@10").value
    assert found["rerank_gain"]["ndcg@10"]["value"] == pytest.approx(gain, abs=0.01)
    assert {"reranked", "hybrid"} < want.values.keys()
    code, out, _ = run(*arguments)
    assert "reranked over hybrid" in out


def test_evaluate_classification(run, tmp_path, model, shallow):
    for name, begin in (("train", 0), ("test", 20)):
        lines = [f"{word}\t{word} {word} {i}" for i in range(begin, begin + 10) for word in ("whale", "bread")]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    files = (tmp_path / "train.tsv", tmp_path / "test.tsv")
    code, out, err = run("evaluate", "classification", *files, "--model", model, "--recipe", shallow, "--json")
    assert code == 0, err
    (found,) = json.loads(out)["datasets"]["test"].values()
    assert found["accuracy"]["value"] == 100
    assert 0 <= found["v_measure"]["value"] <= 100


@pytest.mark.slow
def test_ablate(run, pairs, faq, model):
    code, out, err = run("ablate", "sts", pairs, "--model", model, "--json")
    assert code == 0, err
    report = json.loads(out)
    rows = report["datasets"]["pairs"]
    assert (report["scope"], report["map"], len(rows)) == ("1..2", "none", 20)
    assert rows[0]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    code, out, err = run("ablate", "retrieval", faq, "--model", model, "--map", "center", "--scope", "1..3")
    assert code == 0, err
    assert "plain, tp 1..3" in out
    assert "plain, bidirectional 1..3" in out
    assert "echo, mean" in out
    assert "(best)" in out


def test_tune_writes_a_recipe_that_other_commands_take(run, faq, model, shallow, tmp_path):
    output = tmp_path / "tuned.json"
    arguments = ("tune", "retrieval", faq, "--output", output, "--model", model, "--recipe", shallow, "--budget", 0)
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["held_out"], report["chosen_by"]) == (4, 8)
    assert [file.rsplit(".", 2)[-2:] for file in report["files"]] == [
        [str(output.with_suffix("")), "json"],
        ["fast", "json"],
        ["frontier", "png"],
        ["exits", "png"],
        [str(output.with_suffix("")), "html"],
    ]
    code, out, err = run("evaluate", "retrieval", faq, "--model", model, "--recipe", output, "--json")
    assert code == 0, err
    code, out, _ = run(*arguments)
    assert "on 4 items that were held out" in out.replace("\n", " ")


@pytest.mark.slow
def test_tune_sts_and_a_corpus_without_questions(run, pairs, faq, model, shallow, tmp_path):
    common = ("--model", model, "--recipe", shallow, "--budget", 0, "--json")
    code, _, err = run("tune", "sts", pairs, "--output", tmp_path / "sts.json", *common)
    assert code == 0, err
    assert Recipe.load(tmp_path / "sts.json").dense_weight is None
    (faq / "queries.jsonl").unlink()
    (faq / "corpus.jsonl").write_text(
        "".join(
            json.dumps(
                {"_id": str(i), "title": f"All about the {word}", "text": f"It is a {word} with {i} uses in the house."}
            )
            + "\n"
            for i, word in enumerate(WORDS)
        )
    )
    code, out, err = run("tune", "retrieval", faq, "--output", tmp_path / "own.json", *common)
    assert code == 0, err
    assert json.loads(out)["held_out"] == 4


def test_a_folder_of_texts_asks_for_its_sections(model, shallow, tmp_path):
    (tmp_path / "docs").mkdir()
    sections = [f"## All about the {word}\n\nIt is a {word} with {i} uses in the house." for i, word in enumerate(WORDS)]
    (tmp_path / "docs" / "guide.md").write_text("# Guide\n\n" + "\n\n".join(sections) + "\n\n## Short\n\nNo.")
    found = dataset_of(tmp_path / "docs", 256, Embedder.from_pretrained(model, recipe=shallow))
    assert list(found.queries.values()) == [f"All about the {word}" for word in WORDS]
    for id_, query in found.queries.items():
        assert query not in found.documents[id_]
        assert query.split()[-1] in found.documents[id_]
    assert len(found.documents) == 13


def test_a_folder_of_texts_without_headings_asks_by_first_sentences(model, shallow, tmp_path):
    (tmp_path / "docs").mkdir()
    for word in WORDS:
        (tmp_path / "docs" / f"{word}.txt").write_text(f"This is all about {word}. It is kept in a dry place at home.")
    (tmp_path / "docs" / "guide.md").write_text("Before any heading there is this one. And so it goes on for long.\n\n# A")
    found = dataset_of(tmp_path / "docs", 256, Embedder.from_pretrained(model, recipe=shallow))
    assert sorted(found.queries.values())[1:] == sorted(f"This is all about {word}." for word in WORDS)
    assert all(query not in found.documents[id_] for id_, query in found.queries.items())


def test_two_sets_of_one_name_are_refused(run, pairs, faq, tmp_path):
    (tmp_path / "again" / faq.name).mkdir(parents=True)
    for file in faq.iterdir():
        (tmp_path / "again" / faq.name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "again" / pairs.name).write_bytes(pairs.read_bytes())
    for command in ("evaluate", "ablate"):
        for task, given in (("sts", pairs), ("retrieval", faq)):
            code, _, err = run(command, task, given, tmp_path / "again" / given.name)
            assert (code, "two sets of data have the name" in err) == (2, True)


def test_an_output_that_can_not_be_written_is_told_at_once(run, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("tp_retrieval.evaluation.tuning.tuner.Tuner.run", None)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "taken.arms").write_text("")
    (tmp_path / "folder.png").mkdir()
    for arguments, words in (
        (("tune", "sts", pairs, "--output", tmp_path / "folder.json"), "folder.json can't be written"),
        (("tune", "sts", pairs, "--output", tmp_path / "taken.json"), "taken.arms must be a folder"),
        (("analyze", pairs, "--output", tmp_path / "folder.png"), "folder.png can't be written"),
    ):
        code, _, err = run(*arguments)
        assert (code, words in err) == (2, True), err


def test_analyze_draws_a_picture(run, tmp_path, model):
    (tmp_path / "texts.txt").write_text("\n".join(f"The {word} is kept in a dry place." for word in WORDS))
    arguments = ("analyze", tmp_path / "texts.txt", "--output", tmp_path / "a.png", "--model", model)
    slotted = tmp_path / "slotted.json"
    slotted.write_text(Recipe("Q: <PST> {text}", "P: <PST> {text}", [View(4)], Prepend("tp", 1, 2)).to_json())
    code, out, err = run(*arguments, "--recipe", slotted, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["texts"], len(report["attention"]), len(report["geometry"])) == (12, 8, 50)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run(*arguments, "--recipe", "prompteol")
    assert (code, "no slot that is rewired" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "sts", "missing.tsv"), "missing.tsv: can't be read"),
        (("evaluate", "retrieval", "missing"), "can't be read"),
        (("tune", "sts", "missing.tsv", "--output", "recipe.txt"), "must end in .json"),
        (("tune", "sts", "missing.tsv", "--output", "no/such/recipe.json"), "there is no folder"),
        (("analyze", "missing.txt", "--output", "picture.svg"), "must end in .png"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_recipe_that_was_not_measured_for_the_model_is_said_to_be(run, pairs, model):
    code, _, err = run("evaluate", "sts", pairs, "--model", model)
    assert code == 0
    assert f"`sts` was not measured for {model.name}; `tp-retrieval tune sts FILE` finds" in err
    assert "not measured" not in run("evaluate", "sts", pairs, "--model", model, "--recipe", "prompteol")[2]


def test_a_bad_scope_is_named(run, pairs, model):
    code, _, err = run("ablate", "sts", pairs, "--model", model, "--scope", "1-2")
    assert (code, "'1-2' must be start..stop" in err) == (2, True)


def test_a_missing_extra_gives_the_pip_line(run, pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, _, err = run("evaluate", "sts", pairs)
    assert (code, "pip install 'tp-retrieval[eval]'" in err) == (2, True)
