"""Metrics equal those of scipy, pytrec_eval and scikit-learn, and intervals cover what they should."""

import numpy as np
import pytest
import pytrec_eval
from scipy import stats
from sklearn.metrics import v_measure_score

from tp_retrieval import InputError
from tp_retrieval.evaluation import metrics
from tp_retrieval.evaluation.metrics import bootstrap, mean_of, spearman


def test_spearman_is_scipys_with_ties_and_zero_for_a_constant():
    chance = np.random.default_rng(0)
    gold = chance.integers(0, 5, 200).astype(float)
    predicted = gold + chance.normal(size=200).round(1)
    assert spearman(predicted, gold) == pytest.approx(stats.spearmanr(predicted, gold).statistic, abs=1e-12)
    assert spearman(np.ones(5), np.arange(5.0)) == 0


def test_retrieval_metrics_are_pytrec_evals():
    chance = np.random.default_rng(1)
    documents = [f"d{i}" for i in range(150)]
    grades = {f"q{i}": {d: int(g) for d, g in zip(documents, chance.integers(0, 3, 40), strict=False)} for i in range(12)}
    run = {query: chance.permutation(documents).tolist()[: 30 * i] for i, query in enumerate(grades)}
    names = {
        "ndcg@10": "ndcg_cut_10",
        "recall@10": "recall_10",
        "recall@100": "recall_100",
        "map@100": "map_cut_100",
    }
    evaluator = pytrec_eval.RelevanceEvaluator(grades, set(names.values()))
    theirs = evaluator.evaluate({q: {d: float(-rank) for rank, d in enumerate(found)} for q, found in run.items()})
    ours = metrics.retrieval(run, grades)
    for name, their_name in names.items():
        want = [theirs.get(query, {}).get(their_name, 0.0) for query in grades]
        assert np.allclose(ours[name], want), name
    first = [next((1 / (rank + 1) for rank, d in enumerate(run[q][:10]) if grades[q].get(d, 0) > 0), 0.0) for q in grades]
    assert np.allclose(ours["mrr@10"], first)
    assert ours["ndcg@10"][0] == 0  # nothing was found for the first query


def test_an_interval_of_a_mean_is_that_of_theory_and_draws_are_shared():
    values = np.random.default_rng(2).normal(0.5, 0.2, 400)
    found = bootstrap(mean_of(values), 400)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(100 * values.mean())
    assert found.low == pytest.approx(100 * (values.mean() - half), abs=0.4)
    assert found.high == pytest.approx(100 * (values.mean() + half), abs=0.4)
    assert bootstrap(mean_of(values), 400) == found
    paired = bootstrap(lambda rows: values[rows].mean() - (values - 0.01)[rows].mean(), 400)
    assert (paired.value, paired.low, paired.high) == pytest.approx((1, 1, 1))
    assert paired.sure
    assert not bootstrap(mean_of(values - values.mean()), 400).sure
    with pytest.raises(InputError, match="at least one"):
        bootstrap(mean_of(values), 0)


def test_an_interval_covers_the_truth_in_nineteen_of_twenty_samples():
    chance = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        found = bootstrap(mean_of(chance.normal(0.3, 0.1, 60)), 60, resamples=300)
        inside += found.low <= 30 <= found.high
    assert 180 <= inside <= 198


def test_probe_and_clusters_find_classes_that_are_apart():
    chance = np.random.default_rng(4)
    centres = chance.normal(size=(3, 8)) * 5
    labels = [str(i % 3) for i in range(90)]
    vectors = (centres[[i % 3 for i in range(90)]] + chance.normal(size=(90, 8))).astype(np.float32)
    assert metrics.probe(vectors[:60], labels[:60], vectors[60:], labels[60:]).mean() == 1
    found = metrics.clusters(vectors, 3)
    assert metrics.v_measure(labels, found) == pytest.approx(v_measure_score(labels, found))
    assert metrics.v_measure(labels, found) > 0.99
    swapped = metrics.probe(vectors[:60], labels[:60], vectors[60:], [*labels[61:], "x"])
    assert swapped.mean() < 0.1
