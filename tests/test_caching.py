"""The cache of vectors: each computed once, by role, embedder and type; shared, damaged and interrupted."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.toy import StretchEmbedder, ToyEmbedder
from tp_retrieval import CachedEmbedder, Embedder, IncompatibleIndexError, Index, IndexAccessError, InputError
from tp_retrieval.sqlite.database import Database


class Rolewise(ToyEmbedder):
    """Gives queries other vectors than documents, and counts what it computes."""

    def embed_queries(self, texts):
        return -self.embed_documents(texts)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors.sqlite"


def test_each_text_is_computed_once_a_role(path):
    inner = Rolewise()
    with CachedEmbedder(inner, path) as cached:
        got = cached.embed_documents(["a b", "c", "a b"])
        assert inner.embedded == ["a b", "c"]
        assert np.array_equal(got, ToyEmbedder().embed_documents(["a b", "c", "a b"]))
        assert np.array_equal(cached.embed_queries(["c", "a b"]), -got[[1, 0]])
        assert np.array_equal(cached.embed_queries(["a b"]), -got[:1])
        assert np.array_equal(cached.embed_documents(["d", "c"]), ToyEmbedder().embed_documents(["d", "c"]))
        assert inner.embedded == ["a b", "c", "c", "a b", "d"]
        assert len(cached) == 5
    inner = Rolewise()
    with CachedEmbedder(inner, path) as cached:  # another day
        assert np.array_equal(cached.embed_documents(["a b", "c"]), got[:2])
        assert inner.embedded == []
        cached.clear()
        assert len(cached) == 0
        assert np.array_equal(cached.embed_documents(["a b"]), got[:1])


def test_stretches_are_computed_once_beside_their_documents_vectors(path, tmp_path):
    texts = [f"a text of some words {i} about {'cats' if i % 3 else 'dogs'}" for i in range(20)]
    wanted = [{0, 1} if i % 2 else set() for i in range(20)]
    inner = StretchEmbedder()
    want_vectors, want = StretchEmbedder().embed_with_stretches(texts, wanted)
    for _ in range(2):
        with CachedEmbedder(inner, path) as cached:
            vectors, stretches = cached.embed_with_stretches([*texts, texts[1]], [*wanted, {1}])
        assert np.array_equal(vectors[:20], want_vectors)
        assert [sorted(one) for one in stretches] == [sorted(one) for one in [*wanted, {1}]]
        assert all(
            np.array_equal(one[view], other[view]) for one, other in zip(stretches, want, strict=False) for view in one
        )
    assert sorted(inner.embedded) == sorted(texts)  # once each
    with CachedEmbedder(inner, path) as cached:
        assert len(cached) == 20 + 2 * 10
        cached._database.execute("UPDATE vectors SET digest = zeroblob(16)")
        vectors, stretches = cached.embed_with_stretches(texts, wanted)  # damaged ones are computed anew
        assert np.array_equal(vectors, want_vectors)
        with Index.create(tmp_path / "i", cached) as index:
            index.add(texts)
            assert index.info().fitted == ("within:8", "within:4")
    assert not hasattr(CachedEmbedder(ToyEmbedder(), path), "embed_with_stretches")


def test_embedders_share_a_file_and_no_vector(path):
    one, other = ToyEmbedder("one"), ToyEmbedder("other")
    with CachedEmbedder(one, path) as first, CachedEmbedder(other, path) as second:
        first.embed_documents(["a"])
        second.embed_documents(["a"])
        assert (one.embedded, other.embedded, len(first)) == (["a"], ["a"], 2)


def test_a_models_vectors_are_those_of_its_type(embedder, model_path, path):
    half = Embedder.from_pretrained(model_path, recipe=embedder.recipe, dtype="bfloat16", device="cpu")
    assert half.fingerprint == embedder.fingerprint
    with CachedEmbedder(half, path) as rough, CachedEmbedder(embedder, path) as fine:
        rough.embed_documents(["red apple"])
        assert np.array_equal(fine.embed_documents(["red apple"]), embedder.embed_documents(["red apple"]))
        assert len(fine) == 2


@pytest.fixture
def model_path(tiny_folder):
    return tiny_folder("llama")


def test_an_index_takes_it_for_the_embedder_itself(embedder, path, tmp_path):
    with CachedEmbedder(embedder, path) as cached:
        with Index.create(tmp_path / "index", cached) as index:
            index.add(["red apple", "stone bridge"], show_progress=True)
            want = index.search("bridge", mode="dense")
        with Index.open(tmp_path / "index", embedder) as index:
            assert index.search("bridge", mode="dense") == want
        other = Embedder.from_pretrained(embedder.backbone.origin, recipe="prompteol", dtype="float32", device="cpu")
        with CachedEmbedder(other, path) as wrong, pytest.raises(IncompatibleIndexError, match="recipe"):
            Index.open(tmp_path / "index", wrong)


def test_damage_is_computed_anew(path):
    with CachedEmbedder(ToyEmbedder(), path) as cached:
        want = cached.embed_documents(["a", "b", "c"])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE vectors SET vector = zeroblob(64) WHERE rowid = 1")
    connection.execute("UPDATE vectors SET vector = substr(vector, 5) WHERE rowid = 2")
    connection.commit()
    connection.close()
    inner = ToyEmbedder()
    with CachedEmbedder(inner, path) as cached:
        assert np.array_equal(cached.embed_documents(["a", "b", "c"]), want)
        assert inner.embedded == ["a", "b"]
        assert np.array_equal(cached.embed_documents(["a", "b", "c"]), want)
        assert inner.embedded == ["a", "b"]


def test_what_was_computed_before_an_interrupt_is_kept(path, monkeypatch):
    monkeypatch.setattr("tp_retrieval.caching._WINDOW", 2)

    class Interrupted(ToyEmbedder):
        def embed_documents(self, texts):
            if "e" in texts:
                raise KeyboardInterrupt
            return super().embed_documents(texts)

    with CachedEmbedder(Interrupted(), path) as cached, pytest.raises(KeyboardInterrupt):
        cached.embed_documents(list("abcdef"))
    inner = ToyEmbedder()
    with CachedEmbedder(inner, path) as cached:
        cached.embed_documents(list("abcdef"))
    assert inner.embedded == ["e", "f"]


@pytest.mark.parametrize("bad", [np.full((1, 16), np.nan), np.ones((1, 15)), np.ones((2, 16))])
def test_what_an_index_would_refuse_is_not_kept(path, bad):
    class Bad(ToyEmbedder):
        def embed_documents(self, texts):
            return bad

    with CachedEmbedder(Bad(), path) as cached:
        with pytest.raises(InputError, match="vectors"):
            cached.embed_documents(["a"])
        assert len(cached) == 0


def test_texts_are_checked_and_nothing_gives_nothing(path):
    with CachedEmbedder(ToyEmbedder(), path) as cached:
        assert cached.embed_documents([]).shape == (0, 16)
        with pytest.raises(InputError, match=r"texts\[1\]"):
            cached.embed_queries(["a", None])
    with pytest.raises(InputError, match="closed"):
        cached.embed_queries(["a"])


def test_a_file_of_another_kind_is_left_alone(tmp_path, toy):
    with Index.create(tmp_path / "index", toy) as index:
        index.add(["a text"])
    with pytest.raises(InputError, match="no cache"):
        CachedEmbedder(toy, tmp_path / "index" / "index.sqlite")
    with Index.open(tmp_path / "index", toy) as index:
        assert len(index) == 1
    with pytest.raises(IndexAccessError, match="missing"):
        CachedEmbedder(toy, tmp_path / "missing" / "vectors.sqlite")


def test_threads_and_processes_share_it(path):
    texts = [f"text {i}" for i in range(200)]
    code = (
        "import sys; from tests.toy import StretchEmbedder, ToyEmbedder; from tp_retrieval import CachedEmbedder\n"
        "with CachedEmbedder(ToyEmbedder(), sys.argv[1]) as cached:\n"
        "    for begin in range(0, 200, 10): cached.embed_documents([f'text {i}' for i in range(begin, begin + 10)])"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(2)]
    with CachedEmbedder(ToyEmbedder(), path) as cached:
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda begin: cached.embed_documents(texts[begin : begin + 20]), range(0, 200, 20)))
        assert [process.wait() for process in processes] == [0, 0]
        assert np.array_equal(np.concatenate(parts), ToyEmbedder().embed_documents(texts))
        assert len(cached) == 200


def test_a_cache_in_a_folder_that_can_not_be_written_is_refused_when_it_is_opened(path, monkeypatch):
    with CachedEmbedder(ToyEmbedder(), path) as cached:
        cached.embed_documents(["one"])
    monkeypatch.setattr(Database, "writable", False)
    with pytest.raises(IndexAccessError, match="its folder is readonly"):
        CachedEmbedder(ToyEmbedder(), path)
