"""The within-document map against a slow oracle, and which texts and tokens give stretches."""

from itertools import pairwise

import numpy as np
import pytest

from tests.toy import StretchEmbedder
from tp_retrieval import InputError
from tp_retrieval.embedding.maps import within
from tp_retrieval.embedding.maps.affine import AffineMap, attainable, combine, fit_views, unit
from tp_retrieval.embedding.maps.within import (
    ViewStretches,
    embed_sample,
    joined,
    needed_views,
    priority_of,
    ranges,
    sample,
)
from tp_retrieval.types import VectorView


def corpus(count=60, width=20, seed=0):
    """Documents that differ in all directions, and stretches that differ most in the first ones."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(5, 0.1, width)
    centres = rng.normal(size=(count, width)) + 3
    of_document = {
        i: (centre + scale * rng.normal(size=(2 + i % 4, width))).astype("f4") for i, centre in enumerate(centres)
    }
    documents = np.array([stretches.mean(axis=0) for stretches in of_document.values()])
    return documents, of_document


def oracle(documents, of_document, kept, epsilon):
    """The map of method.md 5b with loops: deviations, whitening by them, principal directions of what is left."""
    deviations = [row - stretches.mean(axis=0) for stretches in of_document.values() for row in stretches.astype(float)]
    scatter = sum(np.outer(row, row) for row in deviations) / len(deviations)
    values, vectors = np.linalg.eigh(scatter)
    shrinking = vectors @ np.diag((values + epsilon * values.max()) ** -0.5)
    mean = documents.astype(float).mean(axis=0)
    mapped = np.array([(row - mean) @ shrinking for row in documents])
    principal = np.linalg.eigh(np.cov(mapped.T, bias=True))[1][:, ::-1][:, :kept]
    return mean, shrinking @ principal


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kept", [1, 5, 20])
def test_the_map_is_the_oracles(kept, apart):
    documents, of_document = corpus()
    map_ = AffineMap.fit(f"within:{kept}", lambda: np.array_split(documents, 3), joined(of_document, apart))
    mean, matrix = oracle(documents, of_document, kept, 0.03 if apart else 0.003)
    assert map_.matrix.shape == (20, kept)
    queries = documents[::-1] + 1
    query_mean = np.concatenate([*of_document.values()]).mean(axis=0) if apart else mean
    ours = unit(map_(queries, "query")) @ unit(map_(documents)).T
    theirs = unit((queries - query_mean) @ matrix) @ unit((documents - mean) @ matrix).T
    assert np.allclose(ours, theirs, atol=1e-5)
    signs = np.sign((map_.matrix * matrix).sum(axis=0))
    assert np.allclose(map_.matrix, matrix * signs, rtol=1e-4, atol=1e-5)


def test_directions_in_which_stretches_differ_are_shrunk_and_others_kept():
    documents, of_document = corpus()
    map_ = AffineMap.fit("within:20", lambda: [documents], joined(of_document, False))
    gain = np.linalg.norm(map_.matrix, axis=1)  # of each raw direction
    assert gain[-1] > 3 * gain[0]


def test_the_order_of_documents_and_stretches_does_not_matter():
    documents, of_document = corpus()
    order = np.random.default_rng(3).permutation(len(documents))
    shuffled = {i: of_document[i][::-1] for i in order.tolist()}
    first = AffineMap.fit("within:9", lambda: [documents], joined(of_document, True))
    second = AffineMap.fit("within:9", lambda: np.array_split(documents[order], 7), joined(shuffled, True))
    for name, array in first.arrays().items():
        assert np.allclose(array, second.arrays()[name], atol=1e-5), name


def test_no_more_directions_are_kept_than_documents_allow():
    documents, of_document = corpus(10)
    assert AffineMap.fit("within:256", lambda: [documents], joined(of_document, False)).matrix.shape == (20, 9)


def test_documents_of_one_stretch_do_not_count():
    single = joined({0: np.ones((1, 3), "f4"), 1: np.zeros((0, 3), "f4"), 5: np.eye(2, 3, dtype="f4")}, False)
    assert single.count == 1
    assert single.documents.tolist() == [5, 5]
    assert joined({}, False).count == 0


def test_too_few_documents_or_stretches_are_named():
    documents, of_document = corpus(9)
    with pytest.raises(InputError, match="'within:4' needs 8 vectors, got 7"):
        AffineMap.fit("within:4", lambda: [documents[:7]], joined(of_document, False))
    few = {i: of_document[i] for i in range(7)}
    for stretches in (None, joined(few, False)):
        with pytest.raises(InputError, match="'within:4' needs stretches of 8 documents"):
            AffineMap.fit("within:4", lambda: [documents], stretches)


@pytest.mark.parametrize("apart", [False, True])
def test_stretches_or_documents_that_hardly_differ_are_only_centred(apart):
    documents, of_document = corpus()
    same = {i: np.repeat(rows[:1], len(rows), axis=0) for i, rows in of_document.items()}
    for rows, stretches in ((documents, same), (np.ones_like(documents), of_document)):
        map_ = AffineMap.fit("within:4", lambda rows=rows: [rows], joined(stretches, apart))
        assert map_.matrix is None
        assert map_.fitted("within:4") == "center"
        assert (map_.query_mean is not None) == apart


@pytest.mark.parametrize("scale", [1e-35, 1e18, 1e30])
def test_numbers_at_the_ends_of_float32_give_a_finite_map(scale):
    documents, of_document = corpus()
    scaled = {i: (rows * scale).astype("f4") for i, rows in of_document.items()}
    map_ = AffineMap.fit("within:4", lambda: [(documents * scale).astype("f4")], joined(scaled, False))
    assert map_.finite


@pytest.mark.parametrize(
    ("count", "with_stretches", "map_"),
    [
        (7, 7, "center"),
        (8, 8, "within:256"),
        (8, 7, "center"),
        (600, 8, "within:256"),
        (600, 0, "whiten:256"),
        (200, 3, "whiten:64"),
    ],
)
def test_without_stretches_the_map_falls_back_to_whitening(count, with_stretches, map_):
    assert attainable("within:256", 576, count, with_stretches) == map_


def test_stretches_are_equal_parts_of_about_24_tokens():
    assert ranges(0) == [(0, 0)]
    assert ranges(7) == [(0, 7)]
    assert ranges(11) == [(0, 11)]
    assert ranges(13) == [(0, 6), (6, 13)]
    assert ranges(24) == [(0, 12), (12, 24)]
    assert ranges(100) == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert [stop - start for start, stop in ranges(512)] == [64] * 8
    assert ranges(512, asymmetric=True) == [(0, 64), (256, 320), (448, 512)]
    for tokens in range(1, 600):
        parts = ranges(tokens)
        assert parts[0][0] == 0
        assert parts[-1][1] == tokens
        assert all(before[1] == after[0] for before, after in pairwise(parts))
        assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1


def test_the_sample_are_the_lowest_priorities_whatever_the_order(monkeypatch):
    monkeypatch.setattr(within, "SAMPLE", 5)
    monkeypatch.setattr(within, "SAMPLE_ASYMMETRIC", 2)
    views = [VectorView(4), VectorView(4, "within:2"), VectorView(4, "within:2", asymmetric=True)]
    assert needed_views(views) == {1, 2}
    texts = [f"text {i}" for i in range(20)]
    first = dict(zip(texts, sample(texts, views), strict=True))
    assert first == dict(zip(texts[::-1], sample(texts[::-1], views), strict=True))
    ranked = sorted(texts, key=priority_of)
    assert [text for text in ranked if first[text]] == ranked[:5]
    assert [text for text in ranked if 2 in first[text]] == ranked[:2]
    assert sample(texts, views[:1]) == [frozenset()] * 20
    again = sample([*texts, *texts[:9]], views)  # equal texts count once
    assert again == [first[text] for text in texts] + [frozenset()] * 9


def test_an_embedders_sample_fits_all_its_views():
    texts = [" ".join(f"word{(7 * i + j * j) % 23}" for j in range(12)) for i in range(40)]
    embedder = StretchEmbedder()
    views = embedder.provenance.views
    raw, stretches = embed_sample(embedder, texts, views)
    assert np.array_equal(raw, embedder.embed_documents(texts))
    assert {view: of_view.asymmetric for view, of_view in stretches.items()} == {0: False, 1: True}
    maps = fit_views(raw, views, stretches)
    assert [map_.matrix.shape for map_ in maps] == [(16, 8), (16, 4)]
    units = combine(raw, views, maps, "query")
    assert not np.allclose(units, combine(raw, views, maps))  # queries have a mean of their own


def test_stretches_of_some_documents_are_numbered_anew():
    stretches = ViewStretches(np.arange(8, dtype="f4").reshape(4, 2), np.array([3, 3, 7, 9]), True)
    part = stretches.of(np.array([9, 3]))
    assert part.documents.tolist() == [1, 1, 0]
    assert part.vectors.tolist() == [[0, 1], [2, 3], [6, 7]]
    assert part.asymmetric
