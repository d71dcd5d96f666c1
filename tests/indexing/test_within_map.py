"""The within-document map of an index: the same in any order, after deletes, and read again where stretches are missing."""

import itertools

import numpy as np
import pytest

from tests.toy import StretchEmbedder, ToyEmbedder, documents
from tp_retrieval import Document, Index, InputError
from tp_retrieval.embedding.maps import within
from tp_retrieval.embedding.maps.affine import combine, fit_views
from tp_retrieval.embedding.maps.within import embed_sample


def maps_of(index):
    return [fitted.arrays for fitted in index._store.maps.all()]


def assert_equal_maps(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert np.allclose(one[name], other[name], atol=1e-5), name


def filled(folder, parts, embedder=None):
    index = Index.create(folder, embedder or StretchEmbedder())
    for part in parts:
        index.add(part)
    return index


def test_searches_compare_what_the_oracle_maps(tmp_path):
    added = documents()
    with filled(tmp_path / "i", [added]) as index:
        assert index.info().fitted == ("within:8", "within:4")
        embedder, texts = index.embedder, [document.text for document in added]
        raw, stretches = embed_sample(embedder, texts, embedder.provenance.views)
        maps = fit_views(raw, embedder.provenance.views, stretches)
        query = embedder.embed_queries(["the cat by the river"])
        cosines = combine(query, embedder.provenance.views, maps, "query") @ combine(raw, embedder.provenance.views, maps).T
        hits = index.search("the cat by the river", 70, mode="dense")
        assert np.allclose([hit.score for hit in hits], np.sort(cosines[0])[::-1], atol=1e-5)
        assert np.allclose(index.map_vectors(query, role="query"), combine(query, embedder.provenance.views, maps, "query"))
        assert not np.allclose(index.map_vectors(query), index.map_vectors(query, role="query"))
        assert np.allclose(index.search_by_vector(query[0], 3)[0].score, cosines.max(), atol=1e-5)


@pytest.mark.parametrize("sample", [512, 20])
@pytest.mark.parametrize("seed", range(3))
def test_the_maps_do_not_depend_on_order_or_batches(tmp_path, monkeypatch, sample, seed):
    monkeypatch.setattr(within, "SAMPLE", sample)
    monkeypatch.setattr(within, "SAMPLE_ASYMMETRIC", sample // 2)
    added = documents()
    shuffled = [added[i] for i in np.random.default_rng(seed).permutation(len(added))]
    cuts = np.split(np.arange(len(added)), [1, 9, 30, 31])
    with (
        filled(tmp_path / "a", [added]) as once,
        filled(tmp_path / "b", [[shuffled[i] for i in cut] for cut in cuts]) as parts,
    ):
        assert once._store.stretches.counts() == parts._store.stretches.counts()
        for index in (once, parts):
            index.rebuild()
        assert_equal_maps(maps_of(once), maps_of(parts))


def test_the_maps_do_not_depend_on_documents_that_were_deleted_or_replaced(tmp_path):
    added, others = documents(), documents(30, seed=9)
    others = [Document(document.text, {}, f"other{i}") for i, document in enumerate(others)]
    with filled(tmp_path / "a", [added]) as plain, filled(tmp_path / "b", [others, added[::-1], added[:7]]) as changed:
        changed.delete([f"other{i}" for i in range(30)])
        for index in (plain, changed):
            index.rebuild()
        assert len(plain) == len(changed)
        assert plain._store.stretches.counts() == changed._store.stretches.counts() == {0: 70, 1: 70}
        assert_equal_maps(maps_of(plain), maps_of(changed))


def test_an_index_as_fitted_is_the_same_in_one_batch_whatever_the_order(tmp_path):
    added = documents()
    with filled(tmp_path / "a", [added]) as first, filled(tmp_path / "b", [added[::-1]]) as second:
        assert_equal_maps(maps_of(first), maps_of(second))


def test_maps_are_fitted_from_eight_documents_on_and_anew_when_they_have_doubled(tmp_path):
    added = documents(40)
    with filled(tmp_path / "i", []) as index:
        fitted_on = []
        for document in added:
            index.add([document])
            fitted_on.append(index.info().fitted_on)
    changes = [count for count, _ in itertools.groupby(fitted_on)]
    assert changes == [0, 8, 16, 32]


def test_vectors_from_elsewhere_lack_stretches_until_rebuild_reads_them(tmp_path):
    added, embedder = documents(), StretchEmbedder()
    raw = embedder.embed_documents([document.text for document in added])
    with filled(tmp_path / "a", [added]) as plain, Index.create(tmp_path / "b", embedder) as index:
        index.add(added, vectors=raw)
        assert index.info().fitted == ("whiten:8", "whiten:4")
        assert [line.partition(";")[2] for line in index.info().fallbacks] == [
            " 70 more must be read by the model, which rebuild does"
        ] * 2
        embedder.embedded.clear()
        assert index.info().unread == 70
        index.rebuild()
        assert index.info().unread == 0
        assert len(embedder.embedded) == 70
        assert index.info().fallbacks == ()
        assert index.info().fitted == ("within:8", "within:4")
        plain.rebuild()
        assert_equal_maps(maps_of(plain), maps_of(index))
        embedder.embedded.clear()
        index.rebuild()
        assert embedder.embedded == []


def test_another_map_of_the_same_kind_reads_what_it_needs(tmp_path):
    with filled(tmp_path / "i", [documents()]) as index:
        index.rebuild(postprocess=["whiten:8", "none"])
        assert index.info().fitted == ("whiten:8", "none")
        index.rebuild(postprocess="within:3")
        assert index.info().fitted == ("within:3", "within:3")
        assert [array["matrix"].shape for array in maps_of(index)] == [(16, 3)] * 2


def test_an_embedder_without_stretches_says_so(tmp_path):
    with filled(tmp_path / "i", [documents()], ToyEmbedder()) as index:
        with pytest.raises(InputError, match="'within:4' needs 8 documents of several stretches, 0 have some"):
            index.rebuild(postprocess="within:4")
        assert index.info().fitted == ()
        assert len(index.search("cat", 3)) == 3


def test_texts_of_one_stretch_fall_back_and_are_not_read_again(tmp_path):
    embedder = StretchEmbedder()
    with filled(tmp_path / "i", [[f"word {i}" for i in range(80)]], embedder) as index:
        assert index.info().fitted == ("whiten:8", "whiten:4")
        assert index.info().fallbacks == ()
        embedder.embedded.clear()
        index.rebuild()
        assert embedder.embedded == []
        with pytest.raises(InputError, match="texts of a few words have none"):
            index.rebuild(postprocess="within:2")


@pytest.mark.parametrize("texts", [["the same words in every text here"] * 90, ["", " "] * 50, ["one"] * 10])
def test_degenerate_corpora_are_searched(tmp_path, texts):
    with filled(tmp_path / "i", [texts]) as index:
        index.rebuild()
        for mode in ("dense", "hybrid", "lexical"):
            assert len(index.search("same words", 5, mode=mode)) <= 5
        assert len(index.search("same words", 5, mode="dense")) == 5
        assert index.verify().ok


def test_clear_forgets_the_stretches(tmp_path):
    with filled(tmp_path / "i", [documents()]) as index:
        index.clear()
        assert index._store.stretches.counts() == {}
        index.add(documents(9))
        assert index._store.stretches.counts() == {0: 9, 1: 9}


def test_documents_that_change_while_they_are_read_are_left_out(tmp_path):
    embedder = StretchEmbedder()
    added = documents()
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(added, vectors=embedder.embed_documents([document.text for document in added]))
        read = embedder.embed_with_stretches

        def slow(texts, wanted, **options):
            index.delete(["d3"])
            return read(texts, wanted, **options)

        embedder.embed_with_stretches = slow
        index.rebuild()
        assert index._store.stretches.counts() == {0: 69, 1: 69}
        assert index.verify().ok


def test_one_large_add_reads_no_more_stretches_than_the_sample_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(within, "SAMPLE", 20)
    monkeypatch.setattr(within, "SAMPLE_ASYMMETRIC", 10)
    embedder, read = StretchEmbedder(), []
    original = embedder.embed_with_stretches

    def counted(texts, wanted, **options):
        read.append([sum(view in views for views in wanted) for view in (0, 1)])
        return original(texts, wanted, **options)

    embedder.embed_with_stretches = counted
    with filled(tmp_path / "i", [documents(70), documents(70)], embedder) as index:
        assert read == [[20, 10], [20, 10]]  # replaced documents are read again
        assert index._store.stretches.counts() == {0: 20, 1: 10}


@pytest.mark.parametrize("show_progress", [False, True])
def test_equal_texts_of_one_add_share_their_stretches(tmp_path, show_progress):
    texts = [document.text for document in documents(30)]
    with Index.create(tmp_path / "i", StretchEmbedder()) as index:
        index.add([text for text in texts for _ in range(3)], show_progress=show_progress)
        assert index._store.stretches.counts() == {0: 30, 1: 30}
        assert index.info().fitted == ("within:8", "within:4")


def test_one_text_many_times_does_not_fill_the_sample(tmp_path):
    texts = [*["the same page was not found here"] * 300, *(document.text for document in documents(30))]
    with filled(tmp_path / "i", [texts]) as index:
        assert index._store.stretches.counts() == {0: 31, 1: 31}
        assert index.info().unread == 0
        assert index.info().fitted == ("within:8", "within:4")


@pytest.mark.parametrize(
    ("stretches", "words"),
    [
        (np.full((2, 16), np.nan, "f4"), r"stretches\[0\]\[0\]: holds NaN or infinity"),
        (np.zeros((2, 5), "f4"), r"stretches\[0\]: shape \(2, 5\) must be \(2, 16\)"),
    ],
)
def test_stretches_that_no_map_can_be_fitted_on_are_refused(tmp_path, stretches, words):
    embedder = StretchEmbedder()
    embedder.embed_with_stretches = lambda texts, wanted, **_: (
        embedder.embed_documents(texts),
        [{0: stretches}] * len(texts),
    )
    with Index.create(tmp_path / "i", embedder) as index:
        with pytest.raises(InputError, match=words):
            index.add(["one text", "another"])
        assert len(index) == 0


def test_a_rebuild_needs_no_model_where_most_of_the_sample_is_there(tmp_path):
    with filled(tmp_path / "i", [documents()]):
        pass
    with Index.open(tmp_path / "i") as index:  # whose model can't be loaded
        index.delete(["d1", "d2", "d3"])
        index.rebuild(kind="flat")
        assert index.info().fitted == ("within:8", "within:4")
