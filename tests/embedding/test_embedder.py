"""The embedder: vectors independent of batch and thread, truncation with a warning, refused input, memory, hooks."""

import random
import threading

import numpy as np
import pytest
import torch

from tp_retrieval import Embedder, Index, InputError, OutOfMemoryError, Recipe, TruncationWarning
from tp_retrieval.embedding.recipe import Prepend, View

SLOTTED = 'This sentence : <PST> "{text}" means in one word:"'
RECIPE = Recipe(SLOTTED, 'A passage : <PST> "{text}" means:"', [View(2), View(None, "mean")], Prepend("tp", 1, 2))
WORDS = "the a dog cat runs sleeps under over house river green slowly because yesterday and mountain".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture
def embedder(folder):
    return Embedder.from_pretrained(folder, recipe=RECIPE, dtype="float32", device="cpu")


def texts_of_all_lengths(count, longest):
    dice = random.Random(0)
    return [" ".join(dice.choices(WORDS, k=1 + i * (longest - 1) // (count - 1))) for i in range(count)]


def relative(got, want):
    return np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)


@pytest.mark.parametrize(
    ("model", "recipe", "count"),
    [
        ("tiny", RECIPE, 64),
        pytest.param(None, "cot-tp", 24, marks=pytest.mark.slow),
        pytest.param(None, "retrieval", 24, marks=pytest.mark.slow),
    ],
    ids=["tiny", "smol-cot-tp", "smol-retrieval"],
)
def test_a_vector_does_not_depend_on_its_neighbours(model, recipe, count, folder):
    embedder = Embedder.from_pretrained(model and folder, recipe=recipe, dtype="float32", device="cpu")
    texts = texts_of_all_lengths(count, 200)
    together = embedder.embed_documents(texts)
    alone = np.concatenate([embedder.embed_documents([text]) for text in texts])
    assert relative(alone, together).max() < 1e-5
    order = random.Random(1).sample(range(count), count)
    for size in (2, 7):
        got = np.empty_like(together)
        for begin in range(0, count, size):
            part = order[begin : begin + size]
            got[part] = embedder.embed_documents([texts[i] for i in part])
        assert relative(got, together).max() < 1e-5
    for tokenizer in embedder._tokenizers.values():
        assert len(tokenizer.prefix) > 3
        tokenizer.prefix = ()
    assert relative(embedder.embed_documents(texts), together).max() < 1e-5


@pytest.mark.slow
def test_in_bfloat16_a_vector_keeps_its_direction_among_neighbours():
    embedder = Embedder.from_pretrained(recipe="cot-tp", dtype="bfloat16")
    texts = texts_of_all_lengths(24, 40)
    together = embedder.normalize(embedder.embed_documents(texts))
    alone = embedder.normalize(np.concatenate([embedder.embed_documents([text]) for text in texts]))
    assert (together * alone).sum(axis=1).min() > 0.999
    exact = Embedder.from_pretrained(recipe="cot-tp", dtype="float32")
    wanted = exact.normalize(exact.embed_documents(texts))
    assert (together * wanted).sum(axis=1).min() > 0.99
    assert embedder.fingerprint == exact.fingerprint


def test_threads_get_what_one_thread_gets(embedder):
    texts = texts_of_all_lengths(40, 30)
    want = {"query": embedder.embed_queries(texts), "document": embedder.embed_documents(texts)}
    assert relative(want["query"], want["document"]).min() > 1e-3
    wrong = []

    def work(number):
        dice = random.Random(number)
        for _ in range(15):
            role = dice.choice(["query", "document"])
            part = dice.sample(range(40), dice.randint(1, 12))
            method = embedder.embed_queries if role == "query" else embedder.embed_documents
            error = relative(method([texts[i] for i in part]), want[role][part]).max()
            if error > 1e-5:
                wrong.append((role, part, error))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cutting_a_text_warns_with_the_counts(embedder):
    with pytest.warns(
        TruncationWarning, match=r"1 of 3 texts were cut to max_tokens=512; texts\[1\] lost the most, its last"
    ):
        got = embedder.embed_queries(["a dog", " dog" * 2000, "a cat"])
    with pytest.warns(TruncationWarning):
        longer = embedder.embed_queries([" dog" * 3000])
    assert relative(got[1:2], longer)[0] < 1e-5
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\u200b\u200b",
        "x" * 1_000_000,
        "\u202eabc",
        "漢字かな",
        "😀" * 50,
        "\ufeff",
        "\r\n\t",
        "\\x00",
    ],
    ids=["empty", "space", "nul", "nul-inside", "zero-width", "1MB", "bidi", "cjk", "emoji", "bom", "controls", "escape"],
)
@pytest.mark.filterwarnings("ignore::tp_retrieval.errors.TruncationWarning")
def test_any_string_becomes_a_finite_vector(embedder, text):
    got = embedder.embed_documents([text, "a dog"])
    assert np.isfinite(got).all()
    assert relative(got[1:], embedder.embed_documents(["a dog"]))[0] < 1e-5


@pytest.mark.parametrize("bad", [None, b"bytes", 7, ["nested"], float("nan")])
def test_what_is_no_string_is_refused_by_position(embedder, bad):
    with pytest.raises(InputError, match=r"texts\[1\]: expected str, got"):
        embedder.embed_queries(["fine", bad])


def test_a_lone_surrogate_is_refused_by_position(embedder):
    with pytest.raises(InputError, match=r"texts\[1\]: character 1 is the lone surrogate U\+D800"):
        embedder.embed_documents(["fine", "a\ud800"])


@pytest.mark.parametrize("bad", ["one text", b"bytes"])
def test_one_text_instead_of_a_list_is_refused(embedder, bad):
    with pytest.raises(InputError, match="expected a list of texts"):
        embedder.embed_queries(bad)


def test_nothing_in_nothing_out(embedder):
    for got in (embedder.embed_queries([]), embedder.embed_documents([])):
        assert got.shape == (0, embedder.dimension)
        assert got.dtype == np.float32


def test_equal_texts_get_equal_vectors(embedder):
    embedder._batching.budget = 40  # so that they would not share a batch
    texts = ["a dog", *texts_of_all_lengths(30, 100), "a cat", "a dog"]
    got = embedder.embed_documents(texts)
    assert (got[0] == got[-1]).all()
    assert relative(got, np.concatenate([embedder.embed_documents([text]) for text in texts])).max() < 1e-5


def test_out_of_memory_halves_the_batch_and_remembers(embedder, monkeypatch):
    texts = texts_of_all_lengths(32, 12)
    want = embedder.embed_documents(texts)
    sizes = []
    forward = type(embedder)._forward

    def small(self, rows, views):
        sizes.append(len(rows))
        if len(rows) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, rows, views)

    monkeypatch.setattr(type(embedder), "_forward", small)
    assert relative(embedder.embed_documents(texts), want).max() < 1e-5
    assert max(sizes) > 5
    sizes.clear()
    embedder.embed_documents(texts[:20])
    assert max(sizes) <= 5


def test_a_budget_never_grows_however_long_the_prefix(folder, monkeypatch):
    long = Recipe(f"{'a demonstration ' * 20}<PST> {{text}}", "{text}", [View(2)], Prepend("tp", 1, 2))
    embedder = Embedder.from_pretrained(folder, recipe=long, dtype="float32", device="cpu")
    before, forward = embedder._batching.budget, type(embedder)._forward

    def small(self, rows, views):
        if len(rows) > 8:
            raise MemoryError
        return forward(self, rows, views)

    monkeypatch.setattr(type(embedder), "_forward", small)
    embedder.embed_queries([f"dog {i}" for i in range(40)])
    assert embedder._batching.budget < before / 2


def test_one_text_that_does_not_fit_is_named_by_its_length(embedder, monkeypatch):
    def never(self, rows, views):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(type(embedder), "_forward", never)
    with pytest.raises(OutOfMemoryError, match=r"a text of \d+ tokens does not fit in memory alone"):
        embedder.embed_documents(["a dog", "a cat"])


def test_other_errors_are_not_retried(embedder, monkeypatch):
    calls = []

    def broken(self, rows, views):
        calls.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(embedder), "_forward", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        embedder.embed_documents(["a dog", "a cat"])
    assert len(calls) == 1


def hooks(embedder):
    modules = embedder._backbone.decoder.modules()
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in modules)


def test_hooks_never_outlive_a_forward_pass(embedder, monkeypatch):
    before = hooks(embedder)
    embedder.embed_documents(["a dog"])
    assert hooks(embedder) == before
    block = embedder._backbone.blocks[1]
    monkeypatch.setattr(block.mlp, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedder.embed_documents(["a dog"])
    assert hooks(embedder) == before


def test_embedders_on_one_model_and_its_generation_do_not_see_each_other(embedder):
    plain = Embedder(embedder._backbone, Recipe("{text}", "{text}", [View(2)]))
    other = Embedder(embedder._backbone, Recipe(SLOTTED, SLOTTED, [View(3)], Prepend("tp-mean", 0, 3)))
    ids = torch.tensor([[5, 6, 7, 8]])
    decoder = embedder._backbone.decoder
    with torch.inference_mode():
        state = decoder(ids).last_hidden_state
    want = [e.embed_queries(["a dog"]) for e in (embedder, plain, other)]
    for e, w in zip((other, embedder, plain), (want[2], want[0], want[1]), strict=True):
        assert (e.embed_queries(["a dog"]) == w).all()
    with torch.inference_mode():
        assert (decoder(ids).last_hidden_state == state).all()


def test_an_early_exit_does_not_stop_another_threads_generation(embedder):
    """The exit after the last loaded block is read by a hook on its output."""
    shallow = Embedder(embedder._backbone, Recipe("{text}", "{text}", [View(4)]))
    ids = torch.tensor([[5, 6, 7, 8]])
    decoder = embedder._backbone.decoder
    want = shallow.embed_queries(["a dog"])
    with torch.inference_mode():
        state = decoder(ids).last_hidden_state
    failures, done = [], threading.Event()

    def generate():
        while not done.is_set():
            try:
                with torch.inference_mode():
                    if not torch.equal(decoder(ids).last_hidden_state, state):
                        failures.append("another state")
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    for _ in range(100):
        assert relative(shallow.embed_queries(["a dog"]), want)[0] < 1e-5
    done.set()
    thread.join()
    assert not failures


def test_the_query_and_the_document_template_are_really_used(embedder):
    swapped = Embedder(embedder._backbone, Recipe(RECIPE.document, RECIPE.query, RECIPE.views, RECIPE.prepend))
    query, document = embedder.embed_queries(["a dog"]), embedder.embed_documents(["a dog"])
    assert relative(query, document)[0] > 1e-2
    assert (swapped.embed_queries(["a dog"]) == document).all()
    assert (swapped.embed_documents(["a dog"]) == query).all()


def test_normalize_gives_the_weighted_mean_of_the_views_cosines(embedder):
    recipe = Recipe(SLOTTED, SLOTTED, [View(2, weight=3.0), View(None, "mean", weight=1.0)], Prepend("tp", 1, 2))
    weighted = Embedder(embedder._backbone, recipe)
    raw = weighted.embed_documents(["a dog", "a mountain river"])
    unit = weighted.normalize(raw)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    width = weighted.dimension // 2
    want = 0.75 * cosine(*raw[:, :width]) + 0.25 * cosine(*raw[:, width:])
    assert unit[0] @ unit[1] == pytest.approx(want, abs=1e-6)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_a_fitted_embedder_gives_centred_unit_vectors_and_survives_a_folder(folder, tmp_path):
    recipe = Recipe(SLOTTED, SLOTTED, [View(2, "last", "center"), View(3, "mean")], Prepend("tp", 1, 2))
    embedder = Embedder.from_pretrained(folder, recipe=recipe, dtype="float32")
    texts = texts_of_all_lengths(20, 30)
    raw = embedder.embed_documents(texts)
    fitted = embedder.fit(texts)
    first = raw[:, :32] - raw[:, :32].mean(axis=0)
    parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (first, raw[:, 32:])]
    want = np.concatenate(parts, axis=1) / np.sqrt(2)
    got = fitted.embed_documents(texts)
    assert np.abs(got - want).max() < 1e-5
    fitted.save(tmp_path / "fitted")
    assert sorted(file.name for file in (tmp_path / "fitted").iterdir()) == ["maps.safetensors", "recipe.json"]
    again = Embedder.from_pretrained(tmp_path / "fitted", dtype="float32")
    assert np.abs(again.embed_documents(texts) - got).max() < 1e-6
    assert again.fingerprint == fitted.fingerprint != embedder.fingerprint
    with Index.create(tmp_path / "index", again) as index:
        index.add(texts)
        want = index.search(texts[3], 2, mode="dense")
        assert want[0].score == pytest.approx(1.0, abs=1e-5)
    with Index.open(tmp_path / "index") as index:
        assert [hit.document for hit in index.search(texts[3], 2, mode="dense")] == [hit.document for hit in want]


def test_a_whitened_embedder_survives_a_folder(folder, tmp_path):
    recipe = Recipe("{text}", "{text}", [View(2, "last", "whiten:8"), View(1, "mean", "abtt:2")])
    texts = texts_of_all_lengths(40, 30)
    fitted = Embedder.from_pretrained(folder, recipe=recipe, dtype="float32").fit(texts)
    fitted.save(tmp_path)
    again = Embedder.from_pretrained(tmp_path, dtype="float32")
    assert again.dimension == fitted.dimension == 8 + 32
    assert np.abs(again.embed_queries(texts) - fitted.embed_queries(texts)).max() < 1e-5


def test_an_embedder_without_maps_can_not_be_saved(embedder, tmp_path):
    with pytest.raises(InputError, match="call fit"):
        embedder.save(tmp_path)


def test_count_tokens_counts_the_models_own(smol, smol_model):
    text = "Tokens, not words: 12345 <|im_end|>"
    want = len(smol_model[1](text, add_special_tokens=False, split_special_tokens=True).input_ids)
    assert smol.count_tokens(text) == want
