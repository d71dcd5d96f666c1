"""Stretches of documents as the embedder gives them: in the same pass for means, through the query template otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from tp_retrieval import Embedder, InputError, Recipe
from tp_retrieval.embedding.forward.forward import Prefix, hidden_states
from tp_retrieval.embedding.forward.tokens import collate
from tp_retrieval.embedding.maps.within import ranges
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.embedding.recipe import Prepend, View

QUERY, DOCUMENT = 'This question : "{text}" means:"', 'This passage : "{text}" means in one word:"'
VIEWS = [View(2, "mean", "within:4"), View(None, "last", "within:4"), View(1, "mean", "within:4", 0.5)]
WORDS = "the a dog cat runs sleeps under over house river green slowly because yesterday and mountain".split()  # noqa: SIM905


def texts(count=12):
    dice = np.random.default_rng(0)
    return [" ".join(dice.choice(WORDS, 1 + 9 * i)) + "." for i in range(count)]


@pytest.fixture(scope="module")
def load(tiny_folder):
    return lambda recipe: Embedder.from_pretrained(tiny_folder("llama"), recipe=recipe, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def embedder(load):
    return load(Recipe(QUERY, DOCUMENT, VIEWS))


def token_states(embedder, text, exit_):
    """Return the states of a text's own tokens at an exit, `(tokens, width)`, by one embedder a token range."""
    tokenizer = embedder._tokenizers[embedder.recipe.document[0]]
    (row,) = tokenizer.rows([text])
    batch = collate([replace(row, prefix=0)])
    states = hidden_states(embedder.backbone, batch, Prefix(0), {exit_}, embedder.recipe.prepend)[exit_][0]
    return states[row.text[0] : row.text[1]].numpy()


def test_stretches_of_a_mean_are_the_means_of_its_documents_own_tokens(embedder):
    given = texts()
    raw, stretches = embedder.embed_with_stretches(given, [{0, 2}] * len(given))
    assert np.array_equal(raw, embedder.embed_documents(given))
    for text, of_text in zip(given, stretches, strict=True):
        for view, exit_ in ((0, 2), (2, 1)):
            states = token_states(embedder, text, exit_)
            want = [states[begin:end].mean(axis=0) for begin, end in ranges(len(states))]
            assert np.allclose(of_text[view], want, atol=1e-4)


def test_other_stretches_are_texts_of_their_own_through_the_query_template(embedder):
    given = texts()
    _, stretches = embedder.embed_with_stretches(given, [{1}] * len(given))
    for text, of_text in zip(given, stretches, strict=True):
        assert of_text.keys() == {1}
        offsets = embedder._plain.encode(text).offsets
        parts = [text[offsets[a][0] : offsets[b - 1][1]] for a, b in ranges(len(offsets), asymmetric=True)]
        want = embedder.embed_queries(parts)[:, 32:64]
        assert np.allclose(of_text[1], want, atol=1e-4)
        assert len(want) <= 3


def test_only_what_is_wanted_is_read(embedder):
    given = [*texts(4), texts(4)[2]]  # one twice
    _, stretches = embedder.embed_with_stretches(given, [set(), {0}, {1, 2}, set(), {0}])
    assert [sorted(of_text) for of_text in stretches] == [[], [0], [0, 1, 2], [], [0, 1, 2]]
    assert embedder.embed_with_stretches([], [])[1] == []


@pytest.mark.parametrize(
    ("document", "prepend"),
    [
        ('A passage : <PST> "{text}" means:"', Prepend("tp", 1, 2)),
        ('A passage : <PST> "{text}" means:"', Prepend("htp", 1, 2)),
        ("Rewrite <PST>, rewritten: {text}", Prepend("echo")),
        ([DOCUMENT, 'The main topic of "{text}" is:"'], None),
    ],
)
def test_stretches_of_a_text_average_to_its_mean(load, document, prepend):
    embedder = load(Recipe(QUERY, document, VIEWS[:1], prepend))
    given = [text + " More follows, as it always should. And more, too." for text in texts(8)]
    raw, stretches = embedder.embed_with_stretches(given, [{0}] * len(given))
    compared = 0
    for text, vector, of_text in zip(given, raw, stretches, strict=True):
        own = [tokenizer.rows([text])[0].text for tokenizer in embedder._tokenizers.values()][1:]
        lengths = [end - begin for begin, end in ranges(min(stop - start for start, stop in own))]
        assert len(of_text[0]) == len(lengths) >= 2
        mean = np.average(of_text[0], axis=0, weights=lengths)
        alike = len({stop - start for start, stop in own}) == 1  # else a template has a token more
        if alike and (prepend is None or prepend.kind != "htp"):  # whose slots inside the text shift the borders
            assert np.allclose(mean, vector, atol=1e-4)
            compared += 1
        assert np.isfinite(mean).all()
    assert compared > 3 or (prepend is not None and prepend.kind == "htp")


def test_unit_embedders_scale_stretches_as_their_documents(load):
    plain = load(Recipe(QUERY, DOCUMENT, VIEWS))
    unit = UnitEmbedder.of(plain)
    given = texts(5)
    raw, stretches = unit.embed_with_stretches(given, [{0, 2}] * 5)
    assert np.allclose(raw, unit.embed_documents(given))
    for view, weight in ((0, 1.0), (2, 0.5)):
        lengths = np.concatenate([np.linalg.norm(of_text[view], axis=1) for of_text in stretches])
        assert np.allclose(lengths, np.sqrt(weight / 2.5), atol=1e-5)
        assert np.allclose(np.linalg.norm(raw[:, 32 * view : 32 * view + 32], axis=1), lengths[0], atol=1e-5)


def test_a_fitted_embedder_treats_queries_and_documents_apart_and_is_saved(load, tmp_path):
    embedder = load(Recipe(QUERY, DOCUMENT, VIEWS))
    given = texts(30)
    fitted = embedder.fit(given)
    shared, apart = ["matrix", "mean"], ["matrix", "mean", "query_mean"]
    assert [sorted(map_.arrays()) for map_ in fitted._maps] == [shared, apart, shared]
    with pytest.raises(InputError, match="this embedder's maps are fitted"):
        fitted.embed_with_stretches(given, [{0}] * len(given))
    fitted.save(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", dtype="float32", device="cpu")
    assert np.allclose(fitted.embed_queries(given), again.embed_queries(given), atol=1e-6)
    assert np.allclose(fitted.embed_documents(given), again.embed_documents(given), atol=1e-6)
