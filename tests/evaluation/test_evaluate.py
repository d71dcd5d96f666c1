"""What is measured equals what an independent computation finds."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.toy import ToyEmbedder
from tp_retrieval import Embedder, InputError, Recipe
from tp_retrieval.embedding.recipe import View
from tp_retrieval.evaluation.datasets import LabelledTexts, RetrievalSet, StsPairs
from tp_retrieval.evaluation.evaluate import cut, evaluate_classification, evaluate_retrieval, evaluate_sts


def test_prompteols_correlation_is_that_of_transformers_alone(smol_model):
    model, tokenizer = smol_model
    first = [
        "A man is playing a guitar.",
        "A dog runs.",
        "The market fell.",
        "She cooks rice.",
        "It rains.",
        "A child sings.",
    ]
    second = ["A man plays a guitar.", "A cat sleeps.", "Shares lost value.", "He rides.", "It is raining.", "A boy eats."]
    data = StsPairs("six", first, second, [5.0, 1.5, 4.0, 0.5, 4.8, 1.0], ["x"] * 6)
    embedder = Embedder.from_pretrained(recipe="prompteol", dtype="float32")
    recipe = Recipe(embedder.recipe.query, embedder.recipe.document, [View(None)])

    def alone(text):
        prompt = f'This sentence : "{text}" means in one word:"'
        with torch.inference_mode():
            return model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1]

    cosines = [float(torch.cosine_similarity(alone(a), alone(b), dim=0)) for a, b in zip(first, second, strict=True)]
    scores = evaluate_sts(embedder.with_recipe(recipe), data)
    assert np.allclose(scores.cosines, cosines, atol=1e-4)
    assert scores.spearman.value == pytest.approx(100 * stats.spearmanr(cosines, data.scores).statistic)


def test_subsets_and_gains(embedder, pairs):
    one = evaluate_sts(embedder, pairs)
    other = evaluate_sts(embedder.with_recipe(Recipe("{text}", "{text}", [View(1, "mean", "center")])), pairs)
    rows = [i for i, subset in enumerate(pairs.subsets) if subset == "b"]
    want = stats.spearmanr(one.cosines[rows], np.array(pairs.scores)[rows]).statistic
    assert one.subsets["b"].value == pytest.approx(100 * want)
    assert list(one.subsets) == ["a", "b", "c"]
    assert one.gain(other).value == pytest.approx(one.spearman.value - other.spearman.value)
    assert other.spearman.low < other.spearman.value < other.spearman.high


def test_maps_are_fitted_on_the_sentences(embedder, pairs):
    recipe = Recipe("{text}", "{text}", [View(1, "mean", "center")])
    raw = embedder.with_recipe(recipe)
    texts = list(dict.fromkeys(pairs.first + pairs.second))
    fitted = raw.fit(texts)
    want = np.einsum("nd,nd->n", fitted.embed_documents(pairs.first), fitted.embed_documents(pairs.second))
    assert np.allclose(evaluate_sts(raw, pairs).cosines, want, atol=1e-5)
    assert np.allclose(evaluate_sts(fitted, pairs).cosines, want, atol=1e-5)


def test_words_vectors_and_both_are_scored_by_query(faq):
    scores = evaluate_retrieval(ToyEmbedder(), faq)
    assert set(scores.values) == {"bm25", "dense", "hybrid"}
    assert scores.values["bm25"]["mrr@10"][0] == 1  # "whale" and "surface" are together in the first document alone
    documents, queries = (ToyEmbedder().embed_documents(list(texts.values())) for texts in (faq.documents, faq.queries))
    documents, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (documents, queries))
    alone = 0
    for i, cosines in enumerate(queries @ documents.T):
        first, last = 1 + (cosines > cosines[i] + 1e-6).sum(), (cosines > cosines[i] - 1e-6).sum()  # apart where tied
        alone += first == last
        bounds = [1 / rank if rank <= 10 else 0 for rank in (last, first)]
        assert bounds[0] - 1e-9 <= scores.values["dense"]["mrr@10"][i] <= bounds[1] + 1e-9
    assert alone >= 5
    gain = scores.gain("hybrid", "bm25", "ndcg@10")
    both, alone = (scores.estimate(way, "ndcg@10").value for way in ("hybrid", "bm25"))
    assert gain.value == pytest.approx(both - alone)
    weighted = evaluate_retrieval(ToyEmbedder(), faq, dense_weight=0.0)
    assert np.array_equal(weighted.values["hybrid"]["ndcg@10"], weighted.values["bm25"]["ndcg@10"])


def test_a_reranker_orders_the_hybrid_searchs_hits_anew(faq):
    class Backwards:
        depth = 5

        def rerank(self, query, hits, top_n=None):
            return [[*of_query[:5][::-1], *of_query[5:]][:top_n] for of_query in hits]

    scores = evaluate_retrieval(ToyEmbedder(), faq, reranker=Backwards())
    assert scores.values.keys() == {"bm25", "dense", "hybrid", "reranked"}
    before, after = (scores.values[way]["mrr@10"] for way in ("hybrid", "reranked"))
    places = {1.0: 5, 1 / 2: 4, 1 / 3: 3, 1 / 4: 2, 1 / 5: 1}
    assert [1 / places.get(value, 1 / value if value else 1e9) for value in before] == pytest.approx(list(after), abs=1e-6)


def test_classes_that_vectors_hold_apart_are_found():
    texts = [f"{word} {i}" for i in range(12) for word in ("apple apple", "bridge bridge", "river river")]
    labels = ["fruit", "stone", "water"] * 12
    scores = evaluate_classification(
        ToyEmbedder(), LabelledTexts("train", texts[:24], labels[:24]), LabelledTexts("test", texts[24:], labels[24:])
    )
    assert scores.accuracy.value == 100
    assert scores.v_measure.value == pytest.approx(100)


def test_documents_are_cut_after_a_whole_word(embedder, faq):
    short = cut(faq, embedder, 6)
    for id_, text in short.documents.items():
        whole = faq.documents[id_]
        assert whole.startswith(text)
        assert whole[len(text) : len(text) + 1] in ("", " ")
        assert embedder.count_tokens(text) <= 6
        longer = whole[: whole.find(" ", len(text) + 1)]
        assert text == whole or embedder.count_tokens(longer) > 6
    assert cut(faq, embedder, 100).documents == faq.documents


@pytest.mark.parametrize("text", ["鲸鱼呼吸空气" * 50, "word\n" * 200, "x " + "鲸鱼" * 100])
def test_documents_of_few_spaces_are_cut_after_a_character(embedder, text):
    (short,) = cut(RetrievalSet("one", {"d": text}, {}, {}), embedder, 40).documents.values()
    assert text.startswith(short)
    assert embedder.count_tokens(short) <= 40 < embedder.count_tokens(text[: len(short) + 1])


def test_one_class_is_nothing_to_learn():
    one = LabelledTexts("train", ["a", "b"], ["x", "x"])
    with pytest.raises(InputError, match="train: every text is labelled 'x'"):
        evaluate_classification(ToyEmbedder(), one, one)
