"""`serve`, `index --from-parquet` and their mistakes: one line each, exit code 2, before any model is loaded."""

import numpy as np
import pytest

from tp_retrieval import Document, Index
from tp_retrieval.cli.serve import answered, named
from tp_retrieval.errors import InputError
from tp_retrieval.integrations import mcp, parquet, server


def test_indexes_are_served_under_their_folders_names_or_given_ones(tmp_path):
    faq, other = tmp_path / "faq", tmp_path / "more" / "faq"
    assert named([faq]) == {"faq": faq}
    assert {name: str(path) for name, path in named([faq, type(faq)(f"second={other}")]).items()} == {
        "faq": str(faq),
        "second": str(other),
    }
    with pytest.raises(InputError, match="the name 'faq' is taken"):
        named([faq, other])


def test_serve_gives_the_server_what_was_asked_for(run, recipe, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(server, "create_app", lambda *a, **k: given.update(k, folders=a[1]) or "app")
    monkeypatch.setattr(server, "listen", lambda app, host, port, started, **k: given.update(k, host=host, port=port))
    monkeypatch.setenv("TP_RETRIEVAL_API_KEYS", "one, two,")
    options = [
        "--recipe",
        recipe,
        "--port",
        9,
        "--no-batching",
        "--max-texts",
        5,
        "--rerank",
        "none",
        "--graceful-timeout",
        7,
    ]
    code, _, _ = run("serve", tmp_path / "faq", *options)
    assert code == 0
    assert given["folders"] == {"faq": tmp_path / "faq"}
    assert (given["host"], given["port"], given["api_keys"]) == ("127.0.0.1", 9, ["one", "two"])
    assert given["graceful_timeout"] == 7
    settings = given["settings"]
    assert (settings.batching, settings.method, settings.limits.texts) == (False, None, 5)


@pytest.mark.parametrize(
    ("host", "allowed", "keyed", "names"),
    [
        ("127.0.0.1", [], False, ["127.0.0.1"]),
        ("search.example", [], False, ["search.example"]),
        ("search.example", ["other.example"], True, ["other.example", "search.example"]),
        ("search.example", [], True, []),
        ("0.0.0.0", [], False, []),
        ("::", ["other.example"], False, ["other.example"]),
        ("unix:/run/retrieval", [], False, []),
    ],
)
def test_a_server_answers_to_the_name_it_listens_at(host, allowed, keyed, names):
    assert answered(host, allowed, keyed=keyed) == names


def test_serve_gives_the_server_the_allowed_hosts(run, recipe, monkeypatch):
    given = {}
    monkeypatch.setattr(server, "create_app", lambda *a, **k: given.update(k) or "app")
    monkeypatch.setattr(server, "listen", lambda *a, **k: None)
    allowed = ["--allowed-host", "a.example", "--allowed-host", "b.example"]
    code, _, _ = run("serve", *allowed, "--host", "unix:socket", "--recipe", recipe, "--rerank", "none")
    assert code == 0
    assert given["allowed_hosts"] == ["a.example", "b.example"]


def test_serving_everyone_without_a_key_is_said(run, recipe, monkeypatch):
    monkeypatch.setattr(server, "create_app", lambda *a, **k: "app")
    monkeypatch.setattr(server, "listen", lambda *a, **k: None)
    _, _, told = run("serve", "--host", "0.0.0.0", "--recipe", recipe, "--rerank", "none")
    assert "anyone may use this" in told
    _, _, told = run("serve", "--recipe", recipe, "--rerank", "none")
    assert "anyone" not in told


def test_mcp_gives_the_client_the_access_that_was_asked_for(run, tmp_path, toy, monkeypatch):
    Index.create(tmp_path / "faq", toy).close()
    given = []
    monkeypatch.setattr(mcp, "create_mcp", lambda access: access)
    monkeypatch.setattr(mcp, "serve_stdio", given.append)
    assert run("mcp", f"docs={tmp_path / 'faq'}") == (0, "", "")
    assert run("mcp", tmp_path / "faq", "--write", "--namespace", "ours") == (0, "", "")
    assert [([*a.indexes], a.namespace, a.write, a.local) for a in given] == [
        (["docs"], None, False, True),
        (["faq"], "ours", True, True),
    ]
    with pytest.raises(InputError, match="the index is closed"):
        given[0].indexes["docs"].get()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "no-such-index", "--rerank", "none"), "no-such-index"),
        (("serve", "--rerank", "magic"), "method: 'magic' must be one of"),
    ],
)
def test_mistakes_in_serve_are_one_line(run, recipe, arguments, message):
    code, _, told = run(*arguments, "--recipe", recipe)
    assert code == 2
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_parquet_is_loaded_without_embedding_and_only_by_its_own_model(run, embedder, tmp_path):
    documents = [Document(f"text {i}", {"n": i}, f"d{i}") for i in range(70)]
    vectors = embedder.embed_documents([document.text for document in documents])
    made = parquet.ShardOrigin.of(embedder)
    (tmp_path / "shards").mkdir()
    parquet.write_shard(tmp_path / "shards" / "a.parquet", parquet.Shard(documents[:40], vectors[:40], made))
    parquet.write_shard(tmp_path / "shards" / "b.parquet", parquet.Shard(documents[40:], vectors[40:], made))
    code, _, told = run("index", "--from-parquet", tmp_path / "shards", "--into", tmp_path / "index", "--json")
    assert code == 0, told
    with Index.open(tmp_path / "index", embedder) as index:
        assert [document.id for document in index] == [f"d{i}" for i in range(70)]
        ((_, mapped),) = index.batches(100)
        assert np.allclose(mapped, index.map_vectors(vectors), atol=1e-6)
    other = parquet.ShardOrigin(**{**vars(made), "fingerprint": "other"})
    parquet.write_shard(tmp_path / "shards" / "a.parquet", parquet.Shard(documents[:40], vectors[:40], other))
    (tmp_path / "shards" / "b.parquet").unlink()
    code, _, told = run("index", "--from-parquet", tmp_path / "shards", "--into", tmp_path / "index")
    assert code == 2
    assert "given other" in told


@pytest.mark.parametrize("given", [(), ("docs", "--from-parquet", "shards")])
def test_index_takes_either_files_or_parquet(run, given, tmp_path):
    code, _, told = run("index", *given, "--into", tmp_path / "index")
    assert code == 2
    assert "give files and folders to embed, or --from-parquet, and not both" in told
