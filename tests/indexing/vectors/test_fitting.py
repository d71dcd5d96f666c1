"""Maps of an index: when they are fitted and on what, against numpy."""

from dataclasses import replace

import numpy as np
import pytest

from tp_retrieval import CorruptIndexError, InputError
from tp_retrieval.indexing.storage.documents import PreparedDocument
from tp_retrieval.indexing.storage.fitted_maps import StoredMap
from tp_retrieval.indexing.storage.meta import IndexMeta, VectorSettings
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.fitting import (
    FIT_AT,
    UnusableMapsError,
    fallbacks,
    fit,
    fit_if_due,
    mapped_views,
    unread_counts,
    with_maps,
)
from tp_retrieval.types import VectorView


@pytest.fixture
def create(tmp_path):
    """Return a function that creates a store with some views."""
    stores = []

    def make(*views):
        meta = IndexMeta(sum(view.width for view in views), "f", views, VectorSettings("flat", 0.9), None, "words")
        stores.append(Store.create(tmp_path / f"index-{len(stores)}", meta))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def insert(store, vectors):
    first = len(store.documents)
    store.insert([PreparedDocument(f"d{first + i}", "text", {}, "{}") for i in range(len(vectors))], vectors)


def add(store, vectors):
    with store.transaction():
        insert(store, vectors)
        fit_if_due(store)


def drawn(count, width, seed=0):
    scales = np.linspace(3.0, 0.5, width)
    return (np.random.default_rng(seed).standard_normal((count, width)) * scales + 1.0).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def whitened(raw, directions):
    """Rows projected to their principal directions at variance one, by an SVD; each direction's sign is arbitrary."""
    centred = raw.astype(np.float64) - raw.mean(axis=0, dtype=np.float64)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(raw)
    return centred @ rows[:directions].T / np.sqrt(variances[:directions] + 1e-3 * variances[0])


def fitted(store):
    return [(map_.postprocess, map_.fitted_on) for map_ in store.maps.all()]


def test_maps_are_fitted_at_fit_at_rows_and_again_where_more_rows_allow_better_ones(create):
    store, raw = create(VectorView(160, "whiten:128"), VectorView(3, "none")), drawn(600, 163)
    changes, before = {}, None
    for begin, end in [(0, FIT_AT - 1), *((i, i + 1) for i in range(FIT_AT - 1, 300)), (300, 600)]:
        add(store, raw[begin:end])
        if (now := fitted(store)) != before:
            changes[end], before = now, now
    assert changes == {
        FIT_AT - 1: [],
        64: [("center", 64), ("none", 64)],
        128: [("whiten:64", 128), ("none", 128)],
        256: [("whiten:128", 256), ("none", 256)],
    }
    assert store.meta.read().generation == 3
    assert store.meta.read().maps_tried == ("whiten:128", "none")


def test_fitted_maps_are_those_of_all_rows_by_an_svd(create):
    store, raw = create(VectorView(6, "whiten:4"), VectorView(5, "center", 0.25)), drawn(100, 11)
    add(store, raw[:60])
    assert mapped_views(store).dimension == 11
    want = np.concatenate([unit(raw[:, :6]) * 2, unit(raw[:, 6:])], axis=1) / np.sqrt(5)
    assert mapped_views(store)(raw) == pytest.approx(want, abs=1e-6)
    add(store, raw[60:])
    maps = mapped_views(store)
    first, second = unit(whitened(raw[:, :6], 4)), unit(raw[:, 6:] - raw[:, 6:].mean(axis=0, dtype=np.float64))
    mapped = maps(raw)
    assert (maps.dimension, mapped.shape, mapped.dtype) == (9, (100, 9), np.float32)
    assert mapped @ mapped.T == pytest.approx(0.8 * first @ first.T + 0.2 * second @ second.T, abs=1e-5)
    with pytest.raises(CorruptIndexError, match="vectors of 10 numbers"):
        maps(raw[:, :10])


def test_a_map_that_the_rows_do_not_allow_is_centring_and_is_tried_again_at_twice_as_many(create):
    store, raw = create(VectorView(4, "whiten:2")), drawn(200, 4)
    add(store, np.tile(raw[0], (FIT_AT + 6, 1)))
    assert fitted(store) == [("center", 70)]
    (sentence,) = fallbacks(store, unread_counts(store))
    assert sentence.startswith("view 0: whiten:2 can't be fitted on these 70 documents")
    assert "center was, and is tried again at 140" in sentence
    add(store, raw[:69])
    assert fitted(store) == [("center", 70)]
    add(store, raw[69:70])
    assert fitted(store) == [("whiten:2", 140)]
    assert fallbacks(store, unread_counts(store)) == []


def test_a_map_that_lacks_rows_is_no_fallback(create):
    store = create(VectorView(40, "whiten:40"))
    add(store, drawn(70, 40))
    assert (fitted(store), fallbacks(store, unread_counts(store))) == ([("center", 70)], [])


def test_fit_takes_the_rows_that_are_left(create):
    store, raw = create(VectorView(3, "center")), drawn(100, 3)
    add(store, raw)
    with store.transaction():
        store.delete(store.documents.seqs_of([f"d{i}" for i in range(30)]))
        fit_if_due(store)
    assert fitted(store) == [("center", 100)]
    with store.transaction():
        fit(store)
    assert fitted(store) == [("center", 70)]
    assert store.maps.all()[0].arrays["mean"] == pytest.approx(raw[30:].mean(axis=0, dtype=np.float64), abs=1e-6)
    with store.transaction():
        store.delete(store.documents.seqs_of([f"d{i}" for i in range(37)]))
        fit(store)
    assert fitted(store) == [("none", 63)]


def test_a_map_is_not_replaced_by_a_lesser_one_when_rows_are_deleted(create):
    store, raw = create(VectorView(256, "whiten:256")), drawn(256, 256)
    add(store, raw)
    assert fitted(store) == [("whiten:128", 256)]
    with store.transaction():
        store.delete(store.documents.seqs_of([f"d{i}" for i in range(120)]))
        fit_if_due(store)
    assert fitted(store) == [("whiten:128", 256)]


def test_a_digest_is_that_of_the_numbers_and_their_order(create):
    store = create(VectorView(2, "center"), VectorView(2, "center"))
    digests = []
    for means in ([0.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        with store.transaction():
            store.set_maps([StoredMap("center", 9, {"mean": np.full(2, mean, dtype=np.float32)}) for mean in means])
        digests.append(mapped_views(store).digest())
    assert digests[0] == digests[2] != digests[1]


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        [{"mean": ones(4)}],
        [{"mean": ones(4)}, {"mean": ones(3)}, {}],
        [{"mean": ones(3)}, {"mean": ones(3)}],
        [{"mean": ones(4)}, {"mean": ones(1, 3)}],
        [{"mean": ones(4), "matrix": ones(3, 2)}, {}],
        [{"mean": ones(4), "matrix": ones(4)}, {}],
    ],
    ids=[
        "too few",
        "too many",
        "mean of another width",
        "mean in two axes",
        "matrix of another width",
        "matrix in one axis",
    ],
)
def test_maps_of_other_shapes_are_refused(create, arrays):
    store = create(VectorView(4, "whiten:2"), VectorView(3, "center"))
    with store.transaction():
        store.set_maps([StoredMap("center", 64, each) for each in arrays])
    with pytest.raises(CorruptIndexError, match="the fitted maps are not those of the index's views") as caught:
        mapped_views(store)
    assert not isinstance(caught.value, UnusableMapsError)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_unusable_until_it_is_fitted_anew(create, value):
    store, raw = create(VectorView(3, "center")), drawn(80, 3)
    add(store, raw)
    with store.transaction():
        store.set_maps([replace(store.maps.all()[0], arrays={"mean": np.array([0, value, 0], dtype=np.float32)})])
    with pytest.raises(UnusableMapsError, match="NaN or infinity"):
        mapped_views(store)
    with store.transaction():
        fit(store)
    assert mapped_views(store)(raw) == pytest.approx(unit(raw - raw.mean(axis=0, dtype=np.float64)), abs=1e-5)


def test_with_maps_changes_maps_alone():
    views = [VectorView(4, "center", 0.5), VectorView(3)]
    assert with_maps(views, "abtt:2") == [VectorView(4, "abtt:2", 0.5), VectorView(3, "abtt:2")]
    assert with_maps(views, ["none", "whiten:9"]) == [VectorView(4, "none", 0.5), VectorView(3, "whiten:9")]
    with pytest.raises(InputError, match="postprocess: 3 maps for 2 views"):
        with_maps(views, ["none"] * 3)
    for wrong in ("whiten", "abtt:0", "center:1", ["none", "Center"]):
        with pytest.raises(InputError, match="must be none, center, abtt:K, whiten:D or within:K"):
            with_maps(views, wrong)
