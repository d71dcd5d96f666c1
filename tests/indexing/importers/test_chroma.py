"""Taking over a collection of Chroma: what chromadb and LangChain's Chroma stored is what the index holds and finds."""

import hashlib
import json
import os
import pickle
import shutil
import sys
from uuid import UUID

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings

from tests.toy import ToyEmbedder, documents
from tp_retrieval import Index, InputError, OptionalDependencyError
from tp_retrieval.cli import main as command
from tp_retrieval.indexing.importers import chroma
from tp_retrieval.indexing.importers.chroma import open_collection
from tp_retrieval.types import PrecomputedVectors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:chromadb")
SETTINGS = Settings(anonymized_telemetry=False)
EMBEDDER = ToyEmbedder()
TEXTS = ["red apple", "green river", "a stone bridge over water"]


def embed(texts):
    return EMBEDDER.embed_documents(texts)


def add(client, name, texts, vectors=None, **options):
    collection = client.create_collection(name, embedding_function=None, **options)
    ids = [f"id{i}" for i in range(len(texts))]
    vectors = embed([text or "" for text in texts]) if vectors is None else vectors
    collection.add(ids=ids, embeddings=vectors, documents=texts, metadatas=[{"n": i} for i in range(len(texts))])
    return collection


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with vectors in files and in the log, some changed and deleted, and what it holds: id -> text, metadata."""
    folder = tmp_path_factory.mktemp("large")
    texts = [document.text for document in documents(1300)]
    held = {f"id{i}": (text, {"n": i}) for i, text in enumerate(texts)}
    with chromadb.PersistentClient(folder, SETTINGS) as client:
        collection = add(client, "papers", texts, metadata={"hnsw:space": "cosine"})
        collection.delete(["id3", "id1200"])
        changed = {
            "id7": ("changed bread", {"n": -7, "more": True}),
            "new": ("cat of stone", {"tags": ["a", "b"], "x": 0.5}),
        }
        texts, metadata = zip(*changed.values(), strict=True)
        collection.upsert(list(changed), embed(texts), list(metadata), list(texts))
    del held["id3"], held["id1200"]
    return folder, held | changed


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "small"
    with chromadb.PersistentClient(folder, SETTINGS) as client:
        add(client, "fruits", TEXTS)
        add(client, "inner", [*TEXTS, None], configuration={"hnsw": {"space": "ip"}})
        vectors = embed(TEXTS)
        add(
            client,
            "unit",
            TEXTS,
            vectors / np.linalg.norm(vectors, axis=1)[:, None],
            configuration={"hnsw": {"space": "ip"}},
        )
        client.create_collection("empty", embedding_function=None)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(folder, *arguments):
        into = ("--into", str(tmp_path / "i"), "--embedder", "toy")
        monkeypatch.setattr(sys, "argv", ["tp-retrieval", "import-chroma", str(folder), *into, *arguments])
        with pytest.raises(SystemExit) as stop:
            command.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def test_vectors_documents_and_ids_are_taken_over_and_the_folder_is_left_alone(large, run, tmp_path):
    folder, held = large
    before = digests(folder)
    assert any(path.name == "data_level0.bin" for path in before), "some vectors are in files"
    code, out, error = run(folder, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out) == {
        "index": str(tmp_path / "i"),
        "documents": len(held),
        "dimension": 16,
        "embedder": "toy",
        "collection": "papers",
        "without_text": 0,
    }
    assert digests(folder) == before
    embedder = ToyEmbedder()
    with Index.open(tmp_path / "i", embedder) as index:
        assert {document.id: (document.text, document.metadata) for document in index} == held
        query = "river of light and stone"
        hits = index.search(query, 10, mode="dense")
        assert embedder.embedded == [query], "no document was embedded again"
        rows, (one,) = embed([text for text, _ in held.values()]), embed([query])
        cosines = rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
        assert np.allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:10], atol=1e-6)
        of_id = dict(zip(held, cosines, strict=True))
        assert np.allclose([hit.score for hit in hits], [of_id[hit.document.id] for hit in hits], atol=1e-6)
    with Index.open(tmp_path / "i") as index:
        assert [hit.document.id for hit in index.search("changed", mode="lexical")] == ["id7"]
        with pytest.raises(InputError, match=r"give it to Index\.open"):
            index.search(query)


@pytest.mark.parametrize("size", [7, 500, 5000])
def test_pages_of_any_size_hold_every_document_once(large, size):
    folder, held = large
    with open_collection(folder) as (collection, _):
        assert (collection.name, collection.space) == ("papers", "cosine")
        pages = list(collection.batches(size))
    assert max(len(page) for page, _ in pages) <= size
    found = [document for page, _ in pages for document in page]
    assert len(found) == len(held)
    assert {document.id: (document.text, document.metadata) for document in found} == held
    assert np.allclose(np.concatenate([rows for _, rows in pages]), embed([document.text for document in found]), atol=1e-5)


class LangChainToy(Embeddings):
    def embed_documents(self, texts):
        return embed(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


@pytest.mark.filterwarnings("ignore")  # those of langchain-chroma
def test_a_store_of_langchain_is_taken_over_and_finds_the_same(run, tmp_path):
    settings = {"collection_metadata": {"hnsw:space": "cosine"}, "client_settings": SETTINGS}
    store = Chroma("langchain", LangChainToy(), str(tmp_path / "store"), **settings)
    texts = [document.text for document in documents(40)]
    ids = store.add_documents([LangChainDocument(text, metadata={"source": f"{i}.md"}) for i, text in enumerate(texts)])
    want = store.similarity_search_with_score("stone bridge over water", 5)
    assert run(tmp_path / "store")[0] == 0
    with Index.open(tmp_path / "i", ToyEmbedder()) as index:
        held = {document.id: (document.text, document.metadata) for document in index}
        assert held == {id_: (text, {"source": f"{i}.md"}) for i, (id_, text) in enumerate(zip(ids, texts, strict=True))}
        hits = index.search("stone bridge over water", 5, mode="dense")
    assert [hit.document.id for hit in hits] == [document.id for document, _ in want]
    assert np.allclose([1 - hit.score for hit in hits], [distance for _, distance in want], atol=1e-5)


@pytest.mark.slow
def test_of_several_collections_one_must_be_named(small, run, tmp_path):
    for arguments, message in (
        ((), "holds several collections; name one of empty, fruits, inner, unit"),
        (("--collection", "roots"), "has no collection 'roots'; name one of empty, fruits, inner, unit"),
        (("--collection", "empty"), "the collection 'empty' holds no documents with a text"),
    ):
        code, _, error = run(small, *arguments)
        assert (code, message in error, error.count("\n")) == (2, True, 1)
        assert not (tmp_path / "i").exists()
    assert run(small, "--collection", "fruits")[0] == 0
    with Index.open(tmp_path / "i") as index:
        assert [document.text for document in index] == TEXTS


def test_entries_without_text_are_counted_and_another_order_is_said(small, run, tmp_path):
    code, out, error = run(small, "--collection", "inner", "--json")
    assert code == 0
    assert {"documents": 3, "without_text": 1}.items() <= json.loads(out).items()
    assert "compares by ip and its vectors have several lengths; the index compares by cosine" in error
    shutil.rmtree(tmp_path / "i")
    code, _, error = run(small, "--collection", "unit")
    assert (code, error) == (0, ""), "of vectors of one length the order is the same"


def test_vectors_of_any_finite_length_are_taken_over(run, tmp_path):
    vectors = np.array([[3e38, 3e38], [1e-30, -1e-30]])
    with chromadb.PersistentClient(tmp_path / "store", SETTINGS) as client:
        add(client, "finite", TEXTS[:2], vectors)
        add(client, "cosine", TEXTS[:2], vectors, metadata={"hnsw:space": "cosine"})  # of which Chroma makes NaN
    code, _, error = run(tmp_path / "store", "--collection", "cosine")
    assert (code, "cosine, behind its first 0 documents: vectors[0]: holds NaN" in error) == (2, True)
    assert run(tmp_path / "store", "--collection", "finite")[0] == 0
    with Index.open(tmp_path / "i", PrecomputedVectors(2, "toy")) as index:
        hits = index.search_by_vector(np.array([1.0, 1.0], np.float32), 2)
    assert [(hit.document.id, round(hit.score, 6)) for hit in hits] == [("id0", 1.0), ("id1", 0.0)]


DAMAGES = {
    "half a database": ("chroma.sqlite3", lambda file: os.truncate(file, file.stat().st_size // 2)),
    "no database's bytes": ("chroma.sqlite3", lambda file: file.write_bytes(b"x" * 5000)),
    "an empty database": ("chroma.sqlite3", lambda file: os.truncate(file, 0)),
    "no database": ("chroma.sqlite3", lambda file: file.unlink()),
    "no vectors": ("data_level0.bin", lambda file: file.unlink()),
    "half a list of ids": ("index_metadata.pickle", lambda file: os.truncate(file, file.stat().st_size // 2)),
    "no header": ("header.bin", lambda file: os.truncate(file, 0)),
    "no folder of vectors": ("header.bin", lambda file: shutil.rmtree(file.parent)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line_and_leaves_nothing_behind(large, run, tmp_path, damage):
    name, harm = DAMAGES[damage]
    shutil.copytree(large[0], tmp_path / "damaged")
    (file,) = (tmp_path / "damaged").rglob(name)
    harm(file)
    code, out, error = run(tmp_path / "damaged")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"tp-retrieval: {tmp_path / 'damaged'}: ")
    assert not (tmp_path / "i").exists()


def test_a_file_that_crashes_chroma_does_not_crash_the_command(large, run, tmp_path):
    shutil.copytree(large[0], tmp_path / "damaged")
    (file,) = (tmp_path / "damaged").rglob("header.bin")
    header = file.read_bytes()
    file.write_bytes(header[:4] + (2**40).to_bytes(8, "little") + header[12:])  # where the vectors begin
    code, out, error = run(tmp_path / "damaged")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "Chroma crashed when it read this, so a file is damaged" in error


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_the_pickle_of_a_collection_runs_nothing(large, run, tmp_path):
    shutil.copytree(large[0], tmp_path / "hostile")
    (file,) = (tmp_path / "hostile").rglob("index_metadata.pickle")
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert run(tmp_path / "hostile")[0] == 2
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_written_to_meanwhile_is_refused(small, monkeypatch):
    copyfile = shutil.copyfile

    def copy_and_write(source, target):
        copyfile(source, target)
        source.write_bytes(source.read_bytes() + b"x")

    monkeypatch.setattr(chroma.shutil, "copyfile", copy_and_write)
    with pytest.raises(InputError, match="was written to meanwhile"), open_collection(small, "fruits"):
        pass


def test_files_of_others_are_not_copied(small, monkeypatch):
    (small / "notes").mkdir()
    (small / "notes" / "video.mp4").write_bytes(b"large")
    (small / "chroma.log").write_bytes(b"large")
    copied = []
    monkeypatch.setattr(chroma.shutil, "copyfile", lambda source, target: copied.append(source.parent))
    with pytest.raises(InputError, match="holds no collection"), open_collection(small):
        pass
    assert len(copied) > 1
    assert [str(UUID(path.name)) == path.name for path in copied if path != small] == [True] * (len(copied) - 1)


def test_without_chromadb_the_extra_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(OptionalDependencyError, match=r"pip install 'tp-retrieval\[chroma\]'"), open_collection(small):
        pass
