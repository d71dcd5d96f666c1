"""Taking over a store of LangChain-community, whose pickle is read as data."""

import os
import pickle
import sys
from datetime import UTC, datetime
from uuid import UUID

import faiss
import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument

from tests.langchain_faiss import InMemoryDocstore, save_local
from tests.toy import ToyEmbedder
from tp_retrieval import Index, InputError
from tp_retrieval.cli import main as command
from tp_retrieval.indexing.importers.langchain_faiss import read_documents, read_vectors

TEXTS = ["red apple", "green river", "stone bridge"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    save_local(folder, TEXTS, ToyEmbedder().embed_documents(TEXTS), monkeypatch)
    return folder


def write_pickle(folder, value):
    (folder / "index.pkl").write_bytes(pickle.dumps(value))


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["tp-retrieval", "import-faiss", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def test_vectors_documents_and_ids_are_taken_over(store, tmp_path, monkeypatch, capsys):
    into = tmp_path / "i"
    arguments = (store, "--into", into, "--embedder", "toy", "--trust-pickle", "--json")
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert (code, '"documents": 3' in out) == (0, True)
    embedder = ToyEmbedder()
    with Index.open(into, embedder) as index:
        assert [(d.id, d.text, d.metadata) for d in index] == [(f"id{i}", t, {"n": i}) for i, t in enumerate(TEXTS)]
        hits = index.search("green river", 3, mode="dense", where={"n": {"$gte": 0}})
        assert (hits[0].document.id, round(hits[0].score, 6)) == ("id1", 1.0)
        assert embedder.embedded == ["green river"]
    with Index.open(into) as index:
        assert [hit.document.id for hit in index.search("bridge", mode="lexical")] == ["id2"]
        with pytest.raises(InputError, match=r"give it to Index\.open"):
            index.search("bridge")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_metadata_that_json_lacks_are_taken_over(store, tmp_path, monkeypatch, capsys, protocol):
    rich = {"at": datetime(2024, 2, 29, 12, tzinfo=UTC), "key": UUID(int=7), "tags": {"b", "a"}, "score": np.float32(0.5)}
    documents = {f"id{i}": LangChainDocument(t, metadata={"n": i, **rich}) for i, t in enumerate(TEXTS)}
    saved = (InMemoryDocstore(documents), {i: f"id{i}" for i in range(3)})
    (store / "index.pkl").write_bytes(pickle.dumps(saved, protocol))
    arguments = (store, "--into", tmp_path / "i", "--embedder", "toy", "--trust-pickle")
    assert run(monkeypatch, capsys, *arguments)[0] == 0
    with Index.open(tmp_path / "i", ToyEmbedder()) as index:
        assert index.get(["id1"])[0].metadata == {
            "n": 1,
            "at": datetime(2024, 2, 29, 12, tzinfo=UTC),
            "key": "00000000-0000-0000-0000-000000000007",
            "tags": ["a", "b"],
            "score": 0.5,
        }
        hits = index.search("river", where={"at": {"$lt": datetime(2025, 1, 1)}, "tags": {"$contains": "b"}, "n": 1})
        assert [hit.document.id for hit in hits] == ["id1"]


def test_without_trust_the_pickle_is_not_opened(store, tmp_path, monkeypatch, capsys):
    code, _, error = run(monkeypatch, capsys, store, "--into", tmp_path / "i", "--embedder", "toy")
    assert code == 2
    assert "3 vectors of 16 numbers" in error
    assert "--trust-pickle" in error
    assert not (tmp_path / "i").exists()


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_a_pickle_that_names_anything_else_is_refused_and_runs_nothing(store, tmp_path):
    for value in (Bomb(tmp_path / "ran"), (InMemoryDocstore({"id0": Bomb(tmp_path / "ran")}), {0: "id0"})):
        write_pickle(store, value)
        with pytest.raises(InputError, match=r"it names \w+\.mkdir, which is no document class"):
            read_documents(store)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data", [b"", b"garbage", pickle.dumps(7), pickle.dumps(({}, {})), pickle.dumps([1, 2]), b"\x80\x04" + b"(" * 10_000]
)
def test_a_broken_pickle_is_named(store, data):
    (store / "index.pkl").write_bytes(data)
    with pytest.raises(InputError, match=r"index\.pkl: no documents"):
        read_documents(store)


@pytest.mark.parametrize("factory", ["Flat", "IVF2,Flat", "HNSW8", "SQ8"])
def test_vectors_are_read_from_every_kind_that_holds_them(tmp_path, factory):
    vectors = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    index = faiss.index_factory(16, factory)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    assert np.allclose(read_vectors(tmp_path), vectors, atol=0.05 if factory == "SQ8" else 0)


def test_what_is_missing_or_does_not_fit_is_named(store, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match=r"holds no index\.faiss"):
        read_vectors(tmp_path)
    (tmp_path / "index.faiss").write_bytes(b"no index")
    with pytest.raises(InputError, match="no index whose vectors FAISS can read"):
        read_vectors(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        read_documents(tmp_path)
    write_pickle(store, (InMemoryDocstore({"a": LangChainDocument("x")}), {0: "a"}))
    code, _, error = run(monkeypatch, capsys, store, "--into", tmp_path / "i", "--embedder", "e", "--trust-pickle")
    assert (code, "3 vectors, index.pkl 1 documents" in error) == (2, True)


def test_a_document_that_can_not_be_taken_over_leaves_nothing_behind(store, tmp_path, monkeypatch, capsys):
    documents = {f"id{i}": LangChainDocument(t, metadata={"n": float("nan") if i == 2 else i}) for i, t in enumerate(TEXTS)}
    write_pickle(store, (InMemoryDocstore(documents), {i: f"id{i}" for i in range(3)}))
    code, _, error = run(monkeypatch, capsys, store, "--into", tmp_path / "i", "--embedder", "e", "--trust-pickle")
    assert (code, "documents[2].metadata" in error) == (2, True)
    assert not (tmp_path / "i").exists()
