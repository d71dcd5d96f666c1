"""Scores against a slow reference, shared weights, and reranking that always returns the same hits in some order."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import reference, tiny
from tests.toy import ToyEmbedder
from tp_retrieval import (
    Document,
    Embedder,
    Hit,
    Index,
    InputError,
    Recipe,
    RecipeError,
    Reranker,
    TruncationWarning,
    UnsupportedModelError,
)
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.embedding.recipe import View
from tp_retrieval.reranking.methods import Choice, QueryLikelihood, YesNo

QUERY = "Which sea animal breathes air?"
TEXTS = [
    "Whales are mammals that live in the sea and breathe air.",
    "Bread dough rises because yeast turns sugar into carbon dioxide.",
    "An octopus has three hearts.",
    "",
    "naïve Straße 東京 😀 " * 12,
    "Whales are large.",
]
METHODS = {"query-likelihood": QueryLikelihood(), "yes-no": YesNo(), "choice": Choice()}


@pytest.fixture(scope="module", params=[*tiny.KINDS, pytest.param("smol", marks=pytest.mark.slow)])
def model(request, tiny_folder, smol_folder):
    """An embedder that was loaded half-deep, and the same model and its tokenizer as transformers loads them."""
    folder = smol_folder if request.param == "smol" else tiny_folder(request.param)
    embedder = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    return embedder, AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("llama")


def referred(model, tokenizer, method, query, document, *, chat=False):
    """Return a score by the slow reference."""
    before, after = method.prompt.replace("{document}", document).split("{query}")
    lead = " "
    if chat:
        message = before.rstrip() if not after else before + query + after
        before = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
        if tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
            before = before.removeprefix(tokenizer.bos_token)
        lead = ""
    if isinstance(method, QueryLikelihood):
        return reference.query_likelihood(model, tokenizer, before.removesuffix(" "), ("" if chat else " ") + query)
    logits = reference.next_logits(model, tokenizer, before if chat else before + query + after)[1][-1]
    first, second = (
        torch.logsumexp(
            torch.stack([logits[tokenizer(lead + word, add_special_tokens=False).input_ids[0]] for word in words]), 0
        )
        for words in method.answers
    )
    return float(first - second if isinstance(method, YesNo) else torch.sigmoid(first - second))


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("name", METHODS)
def test_scores_equal_one_document_at_a_time(model, name, chat):
    embedder, causal, tokenizer = model
    got = Reranker(embedder, method=name, chat=chat).score(QUERY, TEXTS)
    want = [referred(causal, tokenizer, METHODS[name], QUERY, text, chat=chat) for text in TEXTS]
    assert np.abs(got - want).max() < 1e-4
    assert np.ptp(got) > 1e-3


def test_the_embedded_models_likelihood_is_that_of_transformers(smol, smol_folder):
    causal, tokenizer = AutoModelForCausalLM.from_pretrained(smol_folder).eval(), AutoTokenizer.from_pretrained(smol_folder)
    want = [referred(causal, tokenizer, QueryLikelihood(), QUERY, text) for text in TEXTS]
    assert np.abs(Reranker(smol).score(QUERY, TEXTS) - want).max() < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_calibration_subtracts_the_score_under_a_query_without_content(model, name):
    embedder, causal, tokenizer = model
    got = Reranker(embedder, method=name, calibrate=True).score(QUERY, TEXTS)
    want = [
        referred(causal, tokenizer, METHODS[name], QUERY, text) - referred(causal, tokenizer, METHODS[name], "N/A", text)
        for text in TEXTS
    ]
    assert np.abs(got - want).max() < 1e-4


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_neither_neighbours_nor_order_change_a_score(embedder, name, calibrate):
    reranker = Reranker(embedder, method=name, calibrate=calibrate)
    queries = [QUERY, "Why does bread rise?", "Which", "What is large?"]
    together = np.array([reranker.score(query, TEXTS) for query in queries])
    alone = [[reranker.score(query, [text])[0] for text in TEXTS] for query in queries]
    assert np.abs(together - alone).max() < 1e-5
    pairs = [(query, text) for query in queries for text in TEXTS]
    assert np.abs(reranker.score_pairs(pairs) - together.ravel()).max() < 1e-5
    order = np.random.default_rng(0).permutation(len(pairs))
    assert np.abs(reranker.score_pairs([pairs[i] for i in order]) - together.ravel()[order]).max() < 1e-5
    first = Reranker(embedder, method="yes-no", prompt="Query: {query}\nPassage: {document}\nRelevant? Answer:")
    alone = [first.score(query, [text])[0] for query, text in pairs]
    assert np.abs(first.score_pairs(pairs) - alone).max() < 1e-5


def test_equal_documents_score_alike_to_the_last_bit(embedder):
    scores = Reranker(embedder).score(QUERY, [TEXTS[0], *TEXTS, TEXTS[0]])
    assert scores[0] == scores[1] == scores[-1]


def test_texts_that_many_pairs_share_are_run_once(embedder, monkeypatch):
    ran = []
    reranker = Reranker(embedder, method="yes-no")
    decoder = embedder.backbone.language_model().backbone.decoder
    forward = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda *args, **kwargs: (ran.append(kwargs["input_ids"].numel()), forward(*args, **kwargs))[1],
    )
    documents = ["word " * 200, "other " * 200]
    reranker.score_pairs([(f"query {i}", document) for i in range(6) for document in documents])
    together = sum(ran)
    ran.clear()
    for i in range(6):
        reranker.score(f"query {i}", documents)
    assert together < sum(ran) / 2


@pytest.mark.parametrize(("name", "expected"), [("query-likelihood", "query"), ("yes-no", "last"), ("choice", "last")])
def test_logits_are_computed_for_what_is_read_and_for_nothing_else(embedder, name, expected):
    reranker = Reranker(embedder, method=name)
    rows = []
    head = embedder.backbone.language_model().model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    reranker.score(QUERY, TEXTS)
    handle.remove()
    assert sum(rows) == len(TEXTS) * (embedder.count_tokens(" " + QUERY) if expected == "query" else 1)


def test_the_rest_of_the_model_is_loaded_once_and_shared_and_embedding_does_not_notice(folder, monkeypatch):
    loads = []
    weights = ModelSource.weights

    def counted(self, config, dtype, **options):
        loads.append(options)
        return weights(self, config, dtype, **options)

    monkeypatch.setattr(ModelSource, "weights", counted)
    embedder = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    assert len(embedder.backbone.blocks) == 2
    queries, documents = embedder.embed_queries(TEXTS), embedder.embed_documents(TEXTS)
    rerankers = [Reranker(embedder, method=method) for method in METHODS]
    for reranker in rerankers:
        reranker.score(QUERY, TEXTS)
        assert (embedder.embed_queries(TEXTS) == queries).all()
        assert (embedder.embed_documents(TEXTS) == documents).all()
    assert len(loads) == 2
    whole = embedder.backbone.language_model()
    assert len(whole.backbone.blocks) == 4
    assert all(mine is theirs for mine, theirs in zip(embedder.backbone.blocks, whole.backbone.blocks, strict=False))
    assert whole.backbone.decoder.get_input_embeddings() is embedder.backbone.decoder.get_input_embeddings()
    assert embedder.with_recipe(Recipe("{text}", "{text}", [View(None)])).embed_queries(["a dog"]).shape == (1, 32)
    assert len(loads) == 2

    loads.clear()
    reranker = Reranker.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    assert np.abs(reranker.score(QUERY, TEXTS) - rerankers[0].score(QUERY, TEXTS)).max() < 1e-6
    assert len(loads) == 1


def test_threads_get_what_one_thread_gets(embedder):
    rerankers = [Reranker(embedder, method=name) for name in METHODS]
    want = [reranker.score(QUERY, TEXTS) for reranker in rerankers]
    vectors = embedder.embed_documents(TEXTS)
    failures = []

    def work(i):
        try:
            for _ in range(5):
                got = rerankers[i % 3].score(QUERY, TEXTS)
                if np.abs(got - want[i % 3]).max() > 1e-5 or (embedder.embed_documents(TEXTS) != vectors).any():
                    failures.append(i)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_cutting_a_document_warns_with_the_counts(embedder):
    reranker = Reranker(embedder, max_tokens=64)
    with pytest.warns(
        TruncationWarning, match=r"2 documents were cut .* max_tokens=64; the longest lost its last \d{3} tokens"
    ):
        scores = reranker.score(QUERY, ["a dog", "dog " * 200, "cat " * 70])
    assert np.isfinite(scores).all()
    with pytest.raises(InputError, match="prompt and query have"):
        reranker.score("why " * 100, ["a dog"])


def test_an_empty_query_says_nothing_about_any_document(embedder):
    assert (Reranker(embedder).score("", TEXTS) == 0).all()
    assert np.ptp(Reranker(embedder, method="yes-no").score("", TEXTS)) > 0


def test_nothing_in_nothing_out(embedder):
    for method in (*METHODS, "embedding"):
        reranker = Reranker(embedder, method=method)
        assert reranker.score(QUERY, []).shape == (0,)
        assert reranker.score_pairs([]).shape == (0,)
        assert reranker.rerank(QUERY, []) == []
        assert reranker.rerank([], []) == []
        assert reranker.rerank([QUERY, QUERY], [[], []]) == [[], []]


@pytest.mark.parametrize("bad", [None, b"bytes", 7, "\ud800"])
def test_what_is_no_text_is_refused_by_position(embedder, bad):
    reranker = Reranker(embedder)
    with pytest.raises(InputError, match=r"texts\[1\]"):
        reranker.score(QUERY, ["a dog", bad])
    with pytest.raises(InputError, match="query"):
        reranker.score(bad, ["a dog"])
    for pair in ((QUERY, bad), (bad, QUERY), (QUERY,), "ab", None):
        with pytest.raises(InputError, match=r"pairs\[1\]"):
            reranker.score_pairs([(QUERY, "a dog"), pair])
    with pytest.raises(InputError, match=r"hits\[0\]: expected Hit, got str"):
        reranker.rerank(QUERY, ["a dog"])
    with pytest.raises(InputError, match=r"hits\[1\]\[0\]: expected Hit"):
        reranker.rerank([QUERY, QUERY], [[], [bad]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nonsense"}, "'nonsense' must be one of query-likelihood, yes-no, choice, embedding"),
        ({"weight": 1.5}, "weight: 1.5"),
        ({"weight": True}, "weight: True"),
        ({"depth": 0}, "depth: 0"),
        ({"promt": "{query}{document}"}, "promt: unknown option; there are prompt, chat, calibrate, max_tokens"),
        ({"chat": "yes"}, "chat: 'yes' must be true or false"),
        ({"calibrate": 1}, "calibrate: 1 must be true or false"),
        ({"max_tokens": 0}, "max_tokens: 0 must be a whole number from 1"),
        ({"method": YesNo(answers=(("yes",), ("yes",)))}, "begin with the same token"),
        ({"method": "embedding", "prompt": "{query}{document}"}, "prompt: only methods"),
    ],
)
def test_arguments_without_meaning_are_refused(embedder, arguments, message):
    with pytest.raises(InputError, match=message):
        Reranker(embedder, **arguments)


def test_a_method_without_a_model_and_a_model_without_a_head_are_refused(folder):
    for given_instead in (None, ToyEmbedder()):
        with pytest.raises(InputError, match="needs the model of an Embedder"):
            Reranker(given_instead, method="yes-no")
    causal = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    headless = Embedder(Backbone.wrap(causal.model, tokenizer), tiny.RECIPE)
    with pytest.raises(UnsupportedModelError, match="without its LM head"):
        Reranker(headless)
    whole = Embedder(Backbone.wrap(causal, tokenizer), tiny.RECIPE)
    want = referred(causal, tokenizer, QueryLikelihood(), QUERY, TEXTS[0])
    assert abs(Reranker(whole).score(QUERY, TEXTS[:1])[0] - want) < 1e-4


def with_logits(folder, monkeypatch, change):
    """Return a backbone whose model changes its logits."""
    causal = AutoModelForCausalLM.from_pretrained(folder).eval()
    forward = causal.forward

    def changed(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = change(output.logits)
        return output

    monkeypatch.setattr(causal, "forward", changed)
    return Backbone.wrap(causal, AutoTokenizer.from_pretrained(folder))


def test_a_model_that_changes_its_logits_in_another_way_is_refused(folder, monkeypatch):
    backbone = with_logits(folder, monkeypatch, lambda logits: logits**3)
    with pytest.raises(UnsupportedModelError, match="llama changes its logits"):
        backbone.language_model()


def test_a_constant_factor_of_logits_is_taken_over(folder, monkeypatch):
    backbone = with_logits(folder, monkeypatch, lambda logits: logits * 0.25)
    scaled = Reranker(Embedder(backbone, tiny.RECIPE)).score(QUERY, TEXTS[:1])[0]
    want = referred(backbone.whole, backbone.tokenizer, QueryLikelihood(), QUERY, TEXTS[0])
    assert abs(scaled - want) < 1e-4


def test_prompts_and_answers_are_yours(embedder, folder):
    prompt = "Document: {document}\nFrage: {query}\nPasst es?"
    method = YesNo(prompt=prompt, answers=(("ja", "Ja"), ("nein", "Nein")))
    causal, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    want = [referred(causal, tokenizer, method, QUERY, text) for text in TEXTS]
    assert np.abs(Reranker(embedder, method=method).score(QUERY, TEXTS) - want).max() < 1e-4
    same = Reranker(embedder, method="yes-no", prompt=prompt).score(QUERY, TEXTS)
    want = [referred(causal, tokenizer, replace(YesNo(), prompt=prompt), QUERY, text) for text in TEXTS]
    assert np.abs(same - want).max() < 1e-4
    with pytest.raises(RecipeError, match=r"\{document\} must stand before \{query\}"):
        Reranker(embedder, prompt="{query} {document}")


def test_the_embedding_method_scores_by_cosine(embedder, tmp_path):
    other = embedder.with_recipe(Recipe("{text}", "{text}", [View(3, "mean")]))
    query, documents = other.embed_queries([QUERY])[0], other.embed_documents(TEXTS)
    want = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
    assert np.abs(Reranker(other, method="embedding").score(QUERY, TEXTS) - want).max() < 1e-6
    fitted = other.with_recipe(Recipe("{text}", "{text}", [View(3, "mean", "center")])).fit(TEXTS)
    want = fitted.embed_documents(TEXTS) @ fitted.embed_queries([QUERY])[0]
    assert np.abs(Reranker(fitted, method="embedding").score(QUERY, TEXTS) - want).max() < 1e-6
    fitted.save(tmp_path / "fitted")
    loaded = Reranker.from_pretrained(tmp_path / "fitted", method="embedding", dtype="float32", device="cpu")
    assert np.abs(loaded.score(QUERY, TEXTS) - want).max() < 1e-6


class Scripted:
    """A scorer that says what it was told to."""

    def __init__(self, scores):
        self.scores = scores
        self.pairs = []

    def score_pairs(self, pairs, *, show_progress=False):
        self.pairs += pairs
        return np.array(self.scores, dtype=np.float32)


def hits_of(scores, texts=None):
    return [
        Hit(Document(texts[i] if texts else f"text {i}", {}, str(i)), score, i + 1, {"dense": score})
        for i, score in enumerate(scores)
    ]


FLOATS = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(FLOATS, FLOATS, st.sampled_from(["a", "b", "c"])), max_size=12),
    st.integers(0, 14) | st.none(),
    st.integers(-3, 3),
    st.sampled_from([0, 0.3, 1.0]),
)
def test_reranking_is_a_permutation_whatever_the_scorer_does(rows, top_n, surplus, weight):
    hits = hits_of([retrieval for retrieval, _, _ in rows], [text for _, _, text in rows])
    scores = [score for _, score, _ in rows]
    scores = scores + [0.0] * surplus if surplus > 0 else scores[: len(scores) + surplus]
    reranker = Reranker(method=Scripted(scores), weight=weight)
    got = reranker.rerank(QUERY, hits, top_n)
    everything = reranker.rerank(QUERY, hits)
    assert [hit.document.id for hit in got] == [hit.document.id for hit in everything][:top_n]
    assert sorted(hit.document.id for hit in everything) == sorted(hit.document.id for hit in hits)
    assert [hit.rank for hit in everything] == list(range(1, len(hits) + 1))
    assert all(np.isfinite(hit.score) for hit in everything)
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    for hit in everything:
        before = hits[int(hit.document.id)]
        assert hit.document == before.document
        assert np.array_equal(hit.parts["retrieval"], before.score, equal_nan=True)


def test_a_score_is_the_weighted_sum_of_both_standardised():
    retrieval, scores = np.array([3.0, 2.5, 0.5, 0.0]), np.array([-4.0, -1.0, -2.0, -1.5])
    got = Reranker(method=Scripted(scores), weight=0.7).rerank(QUERY, hits_of(retrieval))
    z = [(x - x.mean()) / x.std() for x in (scores, retrieval)]
    want = 0.7 * z[0] + 0.3 * z[1]
    assert [int(hit.document.id) for hit in got] == list(np.argsort(-want))
    assert np.allclose([hit.score for hit in got], np.sort(want)[::-1])
    for hit in got:
        i = int(hit.document.id)
        assert hit.parts == {"dense": retrieval[i], "retrieval": retrieval[i], "rerank": scores[i]}


class Lengths:
    """A scorer by the length of the document."""

    def score_pairs(self, pairs, *, show_progress=False):
        return np.array([len(document) for _, document in pairs], dtype=np.float32)


def test_order_without_prior_scores_is_that_of_the_method():
    texts = ["aa", "a", "aaaa", "bb"]
    assert Reranker(method=Lengths()).order("q", texts) == [(2, 4.0), (0, 2.0), (3, 2.0), (1, 1.0)]
    assert Reranker(method=Lengths()).order("q", texts, top_n=1) == [(2, 4.0)]
    assert Reranker(method=Lengths()).order("q", []) == []


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_order_with_prior_scores_is_that_of_rerank(weight):
    texts, prior = ["aa", "a", "aaaa", "bb", "a long text"], [0.3, 0.9, -1.0, 0.5, 0.5]
    hits = [Hit(Document(text, {}, str(i)), prior[i], i + 1) for i, text in enumerate(texts)]
    reranker = Reranker(method=Lengths(), weight=weight)
    want = [(int(hit.document.id), hit.score) for hit in reranker.rerank("q", hits, 3)]
    assert reranker.order("q", texts, prior, 3) == want
    with pytest.raises(InputError, match="prior: 4 scores for 5 texts"):
        reranker.order("q", texts, prior[:4])


def test_equal_scores_keep_their_order_and_one_hit_stays_first():
    hits = hits_of([1.0] * 5)
    assert [h.document.id for h in Reranker(method=Scripted([2.0] * 5)).rerank(QUERY, hits)] == list("01234")
    (only,) = Reranker(method=Scripted([7.0])).rerank(QUERY, hits[:1])
    assert (only.rank, only.parts["rerank"]) == (1, 7.0)


def test_a_scorer_that_gives_too_few_scores_is_told_where_scores_are_asked(caplog):
    reranker = Reranker(method=Scripted([1.0]))
    with pytest.raises(InputError, match=r"gave \(1,\) scores for 2 pairs"):
        reranker.score(QUERY, ["a", "b"])
    assert [hit.document.id for hit in reranker.rerank(QUERY, hits_of([3.0, 2.0]))] == ["0", "1"]
    assert "the order stays" in caplog.text
    caplog.clear()
    Reranker(method=Scripted([1.0, np.nan])).rerank(QUERY, hits_of([3.0, 2.0]))
    assert "1 of 2 scores are not finite" in caplog.text


def test_the_arguments_of_rerank_are_checked():
    reranker = Reranker(method=Scripted([1.0]))
    for wrong in (-1, 1.5, True):
        with pytest.raises(InputError, match="top_n"):
            reranker.rerank(QUERY, hits_of([1.0]), wrong)
    with pytest.raises(InputError, match="2 lists for 1 queries"):
        reranker.rerank([QUERY], [hits_of([1.0]), []])


class Backwards:
    """Prefers what was added last."""

    depth = 4

    def __init__(self):
        self.seen = []

    def rerank(self, query, hits, top_n=None):
        if not isinstance(query, str):
            return [self.rerank(q, h, top_n) for q, h in zip(query, hits, strict=True)]
        self.seen.append(len(hits))
        return [replace(hit, rank=rank) for rank, hit in enumerate(reversed(hits), 1)][:top_n]


def test_a_search_brings_as_many_hits_as_the_reranker_wants(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document(f"dog {'cat ' * i}", {"even": i % 2 == 0}, str(i)) for i in range(9)])
        for mode in ("hybrid", "dense", "lexical"):
            plain = index.search("dog", 4, mode=mode)
            backwards = Backwards()
            got = index.search("dog", 2, mode=mode, rerank=backwards)
            assert [hit.document.id for hit in got] == [hit.document.id for hit in plain[::-1][:2]]
            assert backwards.seen == [4]
        backwards = Backwards()
        assert len(index.search("dog", 6, rerank=backwards)) == 6
        assert len(index.search("dog", 3, rerank=backwards, where={"even": True})) == 3
        assert [len(hits) for hits in index.search(["dog", "cat"], 2, rerank=backwards)] == [2, 2]
        assert index.search("dog", 0, rerank=backwards) == []
        with pytest.raises(InputError, match="rerank: 'yes-no' must be a reranker"):
            index.search("dog", rerank="yes-no")
        with pytest.raises(InputError, match="mmr"):
            index.search("dog", rerank=backwards, mmr=0.5)


def test_a_search_keeps_every_part_of_a_score(embedder, tmp_path):
    reranker = Reranker(embedder, weight=1.0)
    with Index.create(tmp_path / "i", embedder) as index:
        index.add([Document(text, {}, str(i)) for i, text in enumerate(TEXTS)])
        hits = index.search(QUERY, 3, rerank=reranker)
        assert [h.parts["rerank"] for h in hits] == sorted(reranker.score(QUERY, TEXTS), reverse=True)[:3]
        plain = {hit.document.id: hit for hit in index.search(QUERY, 6)}
        for hit in hits:
            before = plain[hit.document.id]
            assert hit.parts == before.parts | {"retrieval": before.score, "rerank": hit.parts["rerank"]}


def test_a_cross_encoder_stands_in_the_same_place():
    class Cross:
        def predict(self, pairs, show_progress_bar, convert_to_numpy):
            return np.array([len(document) for _, document in pairs], dtype=np.float32)

    reranker = Reranker.from_cross_encoder(Cross())
    assert reranker.score(QUERY, ["ab", "abcd", ""]).tolist() == [2, 4, 0]
    hits = hits_of([3.0, 2.0, 1.0], ["a", "bbb", "cc"])
    assert [hit.document.id for hit in reranker.rerank(QUERY, hits)] == ["1", "2", "0"]
    Cross.predict = lambda self, pairs, show_progress_bar, convert_to_numpy: np.zeros((len(pairs), 2))
    with pytest.raises(InputError, match="not one each"):
        reranker.score(QUERY, ["ab", "abcd"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_cross_encoder_scores_as_it_predicts(tmp_path, smol_folder):
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"vocab_size": 49152, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForSequenceClassification(BertConfig(**sizes, intermediate_size=64, num_labels=1, pad_token_id=2)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(smol_folder).save_pretrained(tmp_path)
    cross = CrossEncoder(str(tmp_path), device="cpu")
    want = cross.predict([(QUERY, text) for text in TEXTS])
    assert np.ptp(want) > 0
    for given_as in (cross, str(tmp_path)):
        assert np.allclose(Reranker.from_cross_encoder(given_as).score(QUERY, TEXTS), want, atol=1e-6)
