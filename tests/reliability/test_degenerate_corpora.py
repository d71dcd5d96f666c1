"""Any finite corpus can be indexed, whatever map its views ask for."""

from dataclasses import replace

import numpy as np
import pytest

from tests.indexing.test_index import ToyWithProvenance
from tp_retrieval import Document, Index, InputError, RecipeError
from tp_retrieval.embedding.maps.affine import AffineMap, combine
from tp_retrieval.indexing.storage.fitted_maps import StoredMap
from tp_retrieval.types import VectorView

WIDTH = 16


def corpus(kind, count):
    """Return raw vectors `(count, WIDTH) float32` of a degenerate kind."""
    rng = np.random.default_rng(7)
    one = rng.normal(size=WIDTH)
    rows = {
        "constant": lambda: np.tile(one, (count, 1)),
        "zeros": lambda: np.zeros((count, WIDTH)),
        "two values": lambda: np.where(np.arange(count)[:, None] % 2, one, -2 * one[::-1]),
        "rank 1": lambda: rng.normal(size=(count, 1)) * one,
        "huge": lambda: np.sign(rng.normal(size=(count, WIDTH))) * 3e38,
        "denormal": lambda: rng.normal(size=(count, WIDTH)) * 1e-40,
        "mixed scales": lambda: rng.normal(size=(count, WIDTH)) * np.logspace(-38, 38, WIDTH),
        "one outlier": lambda: np.concatenate([np.tile(one, (count - 1, 1)), [1e6 * one[::-1]]]),
        "nearly constant": lambda: one + 1e-8 * rng.normal(size=(count, WIDTH)),
    }
    return rows[kind]().astype(np.float32)


KINDS = ("constant", "zeros", "two values", "rank 1", "huge", "denormal", "mixed scales", "one outlier", "nearly constant")


class Degenerate(ToyWithProvenance):
    """Embeds texts that are row numbers as those rows of a corpus."""

    def __init__(self, postprocess, vectors):
        super().__init__(postprocess)
        self.vectors = vectors

    def embed_documents(self, texts):
        return self.vectors[[int(text) for text in texts]].reshape(-1, WIDTH)

    embed_queries = embed_documents


def add_search_reopen_and_verify(folder, map_, kind, count):
    embedder = Degenerate(map_, corpus(kind, count))
    texts = [Document(str(i), {}, str(i)) for i in range(count)]
    with Index.create(folder, embedder) as index:
        index.add(texts[: count // 2])
        index.add(texts[count // 2 :])
        first = index.search("3", count, mode="dense")
        assert len(first) == count
        assert np.isfinite([hit.score for hit in first]).all()
        assert index.verify().ok
        info = index.info()
    if map_ in ("none", "center") or kind in ("two values", "rank 1", "one outlier"):
        assert info.fallbacks == ()
    elif kind in ("constant", "zeros", "nearly constant"):
        assert (info.fitted, len(info.fallbacks)) == (("center",), 1)
    with Index.open(folder, embedder) as index:
        assert index.search("3", count, mode="dense") == first
        assert index.info().fitted == info.fitted
        index.rebuild()
        assert len(index.search("3", count, mode="dense")) == count
        assert index.verify(repair=True).ok


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("map_", ["center", "whiten:64"])
def test_a_degenerate_corpus_of_128_rows_is_added_searched_reopened_and_verified(tmp_path, map_, kind):
    add_search_reopen_and_verify(tmp_path / "i", map_, kind, 128)


@pytest.mark.slow
@pytest.mark.parametrize("count", [64, 128, 200, 300])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("map_", ["none", "center", "abtt:1", "whiten:64", "whiten:8"])
def test_every_degenerate_corpus_is_added_searched_reopened_and_verified(tmp_path, map_, kind, count):
    add_search_reopen_and_verify(tmp_path / "i", map_, kind, count)


def test_equal_rows_fall_back_to_centring_and_get_their_map_when_the_data_allow_it(tmp_path):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([corpus("constant", 128), rng.normal(size=(200, WIDTH))]).astype(np.float32)
    embedder = Degenerate("whiten:64", vectors)
    texts = [Document(str(i), {}, str(i)) for i in range(len(vectors))]
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(texts[:128])
        info = index.info()
        assert (info.postprocess, info.fitted, info.fitted_on) == (("whiten:64",), ("center",), 128)
        assert "view 0: whiten:64 can't be fitted on these 128 documents" in info.fallbacks[0]
        index.add(texts[128:200])
        assert index.info().fitted == ("center",), "not at every add"
        index.rebuild()
        assert (index.info().fitted, index.info().fallbacks) == (("whiten:64",), ())
    with Index.create(tmp_path / "j", embedder) as index:
        index.add(texts[:128])
        index.add(texts[128:])
        assert index.info().fitted == ("whiten:64",), "tried again by itself at twice as many"


@pytest.mark.parametrize("heal", ["open", "verify"])
def test_an_index_whose_map_overflowed_in_version_0_1_0_heals(tmp_path, heal):
    """Such an index has committed rows and a matrix of infinities; nothing could open or repair it."""
    embedder = Degenerate("whiten:64", corpus("constant", 128))
    folder = tmp_path / "i"
    with Index.create(folder, embedder) as index:
        index.add([Document(str(i), {}, str(i)) for i in range(128)])
        bad = StoredMap("whiten:8", 128, {"mean": embedder.vectors[0], "matrix": np.full((WIDTH, 8), np.inf, np.float32)})
        with index._store.transaction():
            index._store.set_maps([bad])
    if heal == "verify":
        from tp_retrieval.indexing.verify import verify

        found = verify(folder, repair=True)
        assert any("holds NaN or infinity" in problem for problem in found.problems)
        assert found.ok
    with Index.open(folder, embedder) as index:
        assert index.info().fitted == ("center",)
        assert len(index.search("3", 200, mode="dense")) == 128
        assert index.verify().ok


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e-45, 0.0])
def test_one_extreme_row_is_mapped_to_what_float64_gives(value):
    rng = np.random.default_rng(1)
    usual = rng.normal(size=(400, WIDTH)).astype(np.float32)
    map_ = AffineMap.fit("whiten:8", lambda: [usual])
    rows = np.concatenate([usual[:3], np.full((1, WIDTH), value, np.float32)])
    mapped = (rows.astype(np.float64) - map_.mean) @ map_.matrix.astype(np.float64)
    want = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    assert np.allclose(combine(rows, [VectorView(WIDTH, "whiten:8", 1e300)], [map_]), want, atol=1e-5)


def test_an_extreme_document_in_a_usual_corpus_is_kept_and_found(tmp_path):
    rng = np.random.default_rng(2)
    vectors = np.concatenate([rng.normal(size=(300, WIDTH)), np.full((1, WIDTH), 3.4e38)]).astype(np.float32)
    embedder = Degenerate("whiten:64", vectors)
    with Index.create(tmp_path / "i", embedder) as index:
        index.add([Document(str(i), {}, str(i)) for i in range(300)])
        index.add([Document("300", {}, "huge")])
        hit, *_ = index.search("300", 1, mode="dense")
        assert (hit.document.id, hit.score) == ("huge", pytest.approx(1.0))
        assert index.verify().ok


def test_a_mapped_row_that_is_not_finite_is_refused_before_the_commit(tmp_path, monkeypatch):
    embedder = Degenerate("center", corpus("rank 1", 100))
    with Index.create(tmp_path / "i", embedder) as index:
        index.add([Document(str(i), {}, str(i)) for i in range(90)])
        monkeypatch.setattr(type(index._vectors), "mapped", lambda self, raw: raw * np.nan)
        with pytest.raises(InputError, match="not finite"):
            index.add([Document("95", {}, "95")])
        monkeypatch.undo()
        assert len(index) == len(index.search("3", 200, mode="dense")) == 90


def test_a_saved_embedder_whose_map_is_not_finite_is_refused(tmp_path, embedder):
    fitted = embedder.with_recipe(
        replace(embedder.recipe, views=(replace(embedder.recipe.views[0], postprocess="center"),))
    )
    fitted = fitted.fit(["one text", "another text"])
    fitted._maps[0].mean[0] = np.inf
    fitted.save(tmp_path / "saved")
    with pytest.raises(RecipeError, match="holds NaN or infinity; fit the maps again"):
        type(embedder).from_pretrained(tmp_path / "saved")
