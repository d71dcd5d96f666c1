"""Views that are read of a sample of documents: the others run no more blocks than the other views need."""

import numpy as np
import pytest

from tp_retrieval import CachedEmbedder, Embedder, InputError, Recipe, RecipeError, TruncationWarning
from tp_retrieval.embedding.maps.affine import is_unread
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.embedding.recipe import Prepend, View

QUERY, DOCUMENT = 'A question : "{text}" means:"', 'A passage : "{text}" means:"'
SLOTTED = 'A passage : <PST> "{text}" means:"'
VIEWS = [View(1, "mean", "within:4", 0.6), View(4, "last", "within:4", 0.4, sample=8)]
TEXTS = ["a dog", "the green river under a house", "cats sleep", "a dog runs slowly over the mountain", "cats sleep"]
WANTED = [{0}, {0, 1}, set(), {1}, set()]
READ = np.array([False, True, False, True, False])


@pytest.fixture(scope="module")
def load(tiny_folder):
    return lambda *recipe: Embedder.from_pretrained(tiny_folder("llama"), recipe=Recipe(*recipe), dtype="float32")


@pytest.mark.parametrize(
    "recipe",
    [(QUERY, DOCUMENT, VIEWS), (SLOTTED, SLOTTED, VIEWS, Prepend("tp", 0, 4)), (QUERY, [DOCUMENT, "{text}"], VIEWS)],
    ids=["plain", "rewired beyond the first exit", "two templates"],
)
def test_a_document_is_read_as_a_whole_if_a_sampled_view_is_wanted_and_else_without_it(load, recipe):
    embedder = load(*recipe)
    whole = embedder.embed_documents(TEXTS)
    raw, stretches = embedder.embed_with_stretches(TEXTS, WANTED, sampled={1})
    assert np.array_equal(is_unread(raw), ~READ)
    assert np.allclose(raw[READ], whole[READ], atol=1e-5)
    assert np.allclose(raw[:, :32], whole[:, :32], atol=1e-5)
    assert np.isnan(raw[~READ, 32:]).all()
    assert [sorted(of_text) for of_text in stretches] == [[0], [0, 1], [], [1], []]


def test_documents_that_are_not_read_as_a_whole_run_no_further_block(load):
    embedder = load(QUERY, DOCUMENT, VIEWS)
    rows = []
    handle = embedder.backbone.blocks[2].register_forward_pre_hook(lambda block, args: rows.append(len(args[0])))
    embedder.embed_queries(["warms the prompts"])
    embedder.embed_documents(["warms the prompts"])
    rows.clear()
    embedder.embed_with_stretches(TEXTS, [{0}, {0}, set(), {0}, set()], sampled={1})
    assert rows == []
    embedder.embed_with_stretches(TEXTS, WANTED, sampled={1})
    handle.remove()
    assert sum(rows[:1]) == READ.sum()


def test_unit_vectors_keep_what_was_not_read_apart(load):
    embedder = UnitEmbedder.of(load(QUERY, DOCUMENT, VIEWS))
    whole = embedder.embed_documents(TEXTS)
    raw, _ = embedder.embed_with_stretches(TEXTS, WANTED, sampled={1})
    assert np.allclose(raw[READ], whole[READ], atol=1e-5)
    assert np.allclose(raw[:, :32], whole[:, :32], atol=1e-5)
    assert np.isnan(raw[~READ, 32:]).all()


def test_a_cache_gives_no_part_of_a_vector_for_a_whole_one(load, tmp_path):
    embedder = load(QUERY, DOCUMENT, VIEWS)
    whole = embedder.embed_documents(TEXTS)
    for _ in range(2):  # computed, then read
        with CachedEmbedder(embedder, tmp_path / "vectors.sqlite") as cached:
            raw, _ = cached.embed_with_stretches(TEXTS, WANTED, sampled={1})
            assert np.array_equal(is_unread(raw), ~READ)
            assert np.allclose(raw[:, :32], whole[:, :32], atol=1e-5)
    with CachedEmbedder(embedder, tmp_path / "vectors.sqlite") as cached:
        assert np.allclose(cached.embed_documents(TEXTS), whole, atol=1e-5)
        raw, _ = cached.embed_with_stretches(TEXTS, WANTED, sampled={1})  # what is there is not left out
        assert np.allclose(raw, whole, atol=1e-5)


def test_what_is_cut_is_warned_of_once_with_its_position(load):
    embedder = load(QUERY, DOCUMENT, VIEWS, None, True, 24)
    texts = ["short", "a " * 30, "fine", "b " * 40, "c " * 35]
    with pytest.warns(TruncationWarning, match=r"^3 of 5 texts were cut .* texts\[3\] lost the most") as caught:
        embedder.embed_with_stretches(texts, [{1}, {1}, set(), set(), {1}], sampled={1})
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_fitted_embedder_reads_every_view(load):
    texts = [f"{text} number {i}" for i, text in enumerate(TEXTS * 8)]
    raw_embedder = load(QUERY, DOCUMENT, VIEWS)
    fitted = raw_embedder.fit(texts)
    assert np.isfinite(fitted.embed_documents(texts)).all()
    with pytest.raises(InputError, match="maps are fitted"):
        fitted.embed_with_stretches(texts, [()] * len(texts), sampled={1})


def test_a_sample_changes_no_raw_vector_and_stays_in_the_recipe(load):
    sampled, plain = load(QUERY, DOCUMENT, VIEWS), load(QUERY, DOCUMENT, [VIEWS[0], View(4, "last", "within:4", 0.4)])
    assert sampled.fingerprint == plain.fingerprint
    assert sampled.recipe != plain.recipe
    assert Recipe.from_dict(sampled.recipe.to_dict()) == sampled.recipe
    assert "sample" not in plain.recipe.to_json()
    assert [view.sample for view in sampled.raw_views] == [None, 8]


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([View(1, sample=8)], r"views.sample: \[8\] must be null for the first views"),
        ([View(1), View(4, sample=8), View(2)], r"views.sample: \[null, 8, null\] must be null for the first views"),
    ],
)
def test_the_first_views_are_read_of_every_document(views, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(QUERY, DOCUMENT, views)


@pytest.mark.parametrize("sample", [0, 7, True, 8.0, "8", 10**30])
def test_a_sample_is_a_number_of_documents(sample):
    with pytest.raises(RecipeError, match=r"views\.sample: .* must be a number of documents from 8 to 1000000, or null"):
        View(4, sample=sample)
