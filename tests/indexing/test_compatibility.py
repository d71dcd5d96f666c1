"""Indexes and caches that carry a fingerprint of format 1: opened by their embedder, by no other, then of format 2."""

import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.toy import ToyEmbedder
from tp_retrieval import (
    CachedEmbedder,
    CorruptIndexError,
    Embedder,
    IncompatibleIndexError,
    Index,
    IndexAccessError,
    InputError,
)
from tp_retrieval.embedding.model.settings import EmbedderSettings
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.indexing.compatibility import with_stored_lengths
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.sqlite.database import Database
from tp_retrieval.types import Identity, Provenance, VectorView

TEXTS = ["red apple", "stone bridge", "blue sky"]
ROOT = Path(__file__).parents[2]


def stored(folder):
    store = Store(folder)
    try:
        return store.meta.get("fingerprint"), store.meta.get("provenance")
    finally:
        store.close()


@pytest.fixture
def aged(tmp_path):
    """Return the folder of an index as an earlier version left it."""

    def make(embedder, name="index"):
        with Index.create(tmp_path / name, embedder) as index:
            index.add(TEXTS)
            legacy = embedder.legacy_identity()
            with index._store.transaction():
                index._store.meta.set("fingerprint", legacy.fingerprint)
                index._store.meta.set("provenance", asdict(legacy.provenance))
        return tmp_path / name

    return make


@pytest.mark.parametrize("kind", [lambda e: e, UnitEmbedder.of], ids=["raw", "unit"])
def test_an_old_index_opens_and_carries_the_new_fingerprint_then(aged, embedder, kind):
    embedder = kind(embedder)
    folder = aged(embedder)
    old_fingerprint, old_provenance = stored(folder)
    with Index.open(folder, embedder) as index:
        assert index.search("stone bridge", 1, mode="dense")[0].document.text == "stone bridge"
    assert old_fingerprint != embedder.fingerprint
    assert stored(folder) == (embedder.fingerprint, old_provenance | {"weights": embedder.provenance.weights})
    with Index.open(folder, embedder) as index:
        assert index.verify().problems == ()


@pytest.mark.slow
def test_another_process_opens_it_with_the_model_it_names(aged, embedder):
    folder = aged(embedder)
    code = (
        "import sys; from tp_retrieval import Index\nwith Index.open(sys.argv[1]) as i: print(i.search('bridge')[0].rank)"
    )
    for _ in range(2):  # the first replaces the fingerprint, the second finds the new one
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout == "1\n", done.stderr
        assert stored(folder)[0] == embedder.fingerprint


def test_another_model_is_refused_by_its_old_fingerprint_and_changes_nothing(aged, embedder, tiny_folder):
    folder = aged(embedder)
    before = stored(folder)
    other = Embedder.from_pretrained(tiny_folder("mistral"), recipe=tiny.RECIPE, dtype="float32", device="cpu")
    weights = (embedder.legacy_identity().provenance.weights, other.legacy_identity().provenance.weights)
    with pytest.raises(IncompatibleIndexError, match='weights: stored "{}", given "{}"'.format(*weights)):
        Index.open(folder, other)
    assert stored(folder) == before


class Legacy(ToyEmbedder):
    """A toy with an old fingerprint and a new one, whose new one alone differs from another's."""

    def __init__(self, new="2:" + "b" * 32, old="a" * 32):
        super().__init__(new)
        self.old = old

    def legacy_identity(self):
        return Identity(self.old, None)


def test_a_new_fingerprint_is_never_compared_by_the_old_one(tmp_path):
    Index.create(tmp_path / "i", Legacy()).close()
    with pytest.raises(IncompatibleIndexError, match=r'fingerprint: stored "2:b+", given "2:c+"'):
        Index.open(tmp_path / "i", Legacy(new="2:" + "c" * 32))


def test_where_nothing_can_be_written_the_old_fingerprint_stays_and_the_index_opens(aged, embedder, monkeypatch):
    folder = aged(embedder)
    before = stored(folder)
    real = Database._connected

    def refused(self, name, **options):  # as in a place where SQLite can't make its files; root may write anywhere
        if "uri" not in options:
            raise IndexAccessError("attempt to write a readonly database")
        return real(self, name, **options)

    monkeypatch.setattr(Database, "_connected", refused)
    with Index.open(folder, embedder) as index:
        assert index.search("stone bridge", 1)[0].document.text == "stone bridge"
        with pytest.raises(IndexAccessError, match="readonly"):
            index.add(["four"])
    assert stored(folder) == before
    assert (folder / "index.sqlite.xxh128").exists()


def test_a_damaged_old_index_is_refused_and_not_sealed_anew(aged, embedder):
    folder = aged(embedder)
    file = folder / "index.sqlite"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for _ in range(2):
        with pytest.raises(CorruptIndexError, match="damaged"):
            Index.open(folder, embedder)


def test_vectors_made_before_go_into_an_index_of_today_and_the_other_way_round(aged, embedder):
    vectors, old = embedder.embed_documents(["four", "five"]), embedder.legacy_identity().fingerprint
    with Index.create(aged(embedder).parent / "new", embedder) as index:
        index.add_vectors(["four", "five"], vectors, fingerprint=old)
        with pytest.raises(IncompatibleIndexError, match=f"given {'0' * 32}"):
            index.add_vectors(["four"], vectors[:1], fingerprint="0" * 32)
        assert len(index) == 2
    folder = aged(embedder, "aged")
    with Index.open(folder) as index:  # the model is loaded only to compare
        index.add_vectors(["four"], vectors[:1], fingerprint=old)
        assert index._embedder is None
        index.add_vectors(["five"], vectors[1:], fingerprint=embedder.fingerprint)
        assert len(index) == 5
    assert stored(folder)[0] == embedder.fingerprint


class Computing:
    """An embedder that counts the texts it computes."""

    def __init__(self, embedder):
        self.dimension, self.fingerprint, self.provenance = embedder.dimension, embedder.fingerprint, embedder.provenance
        self.legacy_identity, self._embedder, self.embedded = embedder.legacy_identity, embedder, []

    def embed_documents(self, texts):
        self.embedded += texts
        return self._embedder.embed_documents(texts)


def test_a_cache_of_format_1_is_read_and_kept_under_the_new_fingerprint(embedder, tmp_path):
    old = Computing(embedder)
    old.fingerprint = embedder.legacy_identity().fingerprint
    with CachedEmbedder(old, tmp_path / "cache.sqlite") as cache:
        want = cache.embed_documents(TEXTS)
    for read_again in (TEXTS[:1], []):  # one to prove that they are this embedder's
        new = Computing(embedder)
        with CachedEmbedder(new, tmp_path / "cache.sqlite") as cache:
            assert np.array_equal(cache.embed_documents([*TEXTS, TEXTS[0]]), want[[0, 1, 2, 0]])
            assert (new.embedded, len(cache)) == (read_again, 3)
    other = Computing(embedder)
    other.legacy_identity = lambda: replace(embedder.legacy_identity(), fingerprint="0" * 32)
    other.fingerprint = "2:" + "0" * 32
    with CachedEmbedder(other, tmp_path / "cache.sqlite") as cache:
        cache.embed_documents(TEXTS)
        assert (other.embedded, len(cache)) == (TEXTS, 6)


def test_an_index_opens_behind_a_cache(aged, embedder, tmp_path):
    folder = aged(embedder)
    with CachedEmbedder(embedder, tmp_path / "cache.sqlite") as cache, Index.open(folder, cache) as index:
        assert len(index) == 3
    assert stored(folder)[0] == embedder.fingerprint


class Shares(ToyEmbedder):
    """An embedder whose fingerprint of format 1 another one has, too."""

    def __init__(self, name, step):
        super().__init__(f"2:{name}")
        self.step = step

    def embed_documents(self, texts):
        return super().embed_documents(texts)[:, :: self.step]

    embed_queries = embed_documents

    def legacy_identity(self):
        return Identity("0" * 32, None)


def test_an_index_whose_old_fingerprint_two_models_share_stays_with_the_one_that_made_it(tmp_path):
    maker, other = Shares("maker", 1), Shares("other", -1)
    with Index.create(tmp_path / "i", maker) as index:
        index.add(TEXTS)
        with index._store.transaction():
            index._store.meta.set("fingerprint", "0" * 32)
    Index.open(tmp_path / "i", other).close()
    assert stored(tmp_path / "i")[0] == "0" * 32
    Index.open(tmp_path / "i", maker).close()
    assert stored(tmp_path / "i")[0] == "2:maker"
    with pytest.raises(IncompatibleIndexError):
        Index.open(tmp_path / "i", other)


def test_a_cache_whose_old_fingerprint_two_models_share_gives_each_its_own_vectors(tmp_path):
    maker, other = Shares("maker", 1), Shares("other", -1)
    old = ToyEmbedder("0" * 32)
    with CachedEmbedder(old, tmp_path / "cache") as cache:
        kept = cache.embed_documents(TEXTS)
    with CachedEmbedder(other, tmp_path / "cache") as cache:
        assert np.array_equal(cache.embed_documents(TEXTS), other.embed_documents(TEXTS))
    maker.embedded.clear()
    with CachedEmbedder(maker, tmp_path / "cache") as cache:
        assert np.array_equal(cache.embed_documents(TEXTS), kept)
    assert len(maker.embedded) == 1, "one to prove it, the others were taken over"


def test_an_old_index_opens_at_once_while_another_process_writes(aged, embedder):
    folder = aged(embedder)
    before = stored(folder)
    with Index.open(folder) as writer, writer._store.transaction():
        begin = time.monotonic()
        with Index.open(folder, embedder) as index:
            assert len(index.search("stone", 3)) == 3
        assert time.monotonic() - begin < 15, "not the half minute that a writer waits"
    assert stored(folder) == before


def test_what_an_index_says_of_loading_is_checked_and_an_absent_device_replaced():
    plain = Provenance("m", "m", None, "2:0", "float32", {}, (VectorView(4),))

    def stored(**settings):
        return EmbedderSettings.stored(replace(plain, settings=settings))

    assert stored(device="cuda:9").device is None
    assert stored(device=["cpu"]).device is None
    assert stored(device="cpu").device == "cpu"
    assert stored(model_kwargs={"device_map": {"": "cuda:9"}}).model_kwargs == {}
    assert stored(model_kwargs={"device_map": "auto"}).model_kwargs == {"device_map": "auto"}
    assert stored(model_kwargs={"attn_implementation": "sdpa"}).model_kwargs == {"attn_implementation": "sdpa"}
    for wrong in (
        {"attn_implementation": "owner/kernel"},
        {"code_revision": "x"},
        {"quantization_config": {"quant_method": "x"}},
    ):
        with pytest.raises(InputError, match="which is not taken from an index"):
            stored(model_kwargs=wrong)
    with pytest.raises(InputError, match="not taken from an index"):
        stored(model_kwargs=[1])


def test_options_of_loading_are_checked_when_an_index_is_opened(tmp_path, toy):
    Index.create(tmp_path / "i", toy).close()
    with pytest.raises(InputError, match="divice: unknown option; there are device, dtype, model_kwargs"):
        Index.open(tmp_path / "i", divice="cpu")
    with pytest.raises(InputError, match="device: the embedder that is given is loaded already"):
        Index.open(tmp_path / "i", toy, device="cpu")


@pytest.mark.parametrize("unit", [True, False])
def test_raw_vectors_are_scaled_for_an_index_of_unit_views_and_unit_ones_stay(unit):
    views = (VectorView(3, "center"), VectorView(5, weight=4.0))
    provenance = Provenance("m", None, None, "w", "float32", {}, views, unit=unit)
    raw = np.random.default_rng(0).normal(size=(2500, 8)).astype(np.float32)
    want = raw.copy()
    if unit:
        for part, weight in ((want[:, :3], 1 / 5), (want[:, 3:], 4 / 5)):
            part *= np.sqrt(weight) / np.linalg.norm(part, axis=1, keepdims=True)
    scaled = with_stored_lengths(raw.copy(), provenance)
    assert np.allclose(scaled, want, atol=1e-6)
    assert np.array_equal(with_stored_lengths(scaled.copy(), provenance), scaled)
