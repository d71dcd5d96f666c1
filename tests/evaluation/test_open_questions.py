"""What the benchmarks of the open questions compute: cosines against the embedder's, statistics against the slower way."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModel

from benchmarks.open_questions import attention, complexity, scopes
from benchmarks.open_questions.common import PairStates, Prompt, Resamples, estimate, spearman_of_rows
from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation.datasets import StsPairs
from tp_retrieval.evaluation.metrics import bootstrap, spearman
from tp_retrieval.evaluation.objectives.sts import StsObjective

WORDS = ["red", "green", "blue", "dog", "cat", "bird", "house", "river", "stone", "bread"]
PROMPT = Prompt("p", ('Say : "{text}" now',))


@pytest.fixture(scope="module")
def objective():
    chance = np.random.default_rng(0)
    first, second = ([" ".join(chance.choice(WORDS, 4)) for _ in range(30)] for _ in range(2))
    return StsObjective(StsPairs("pairs", first, second, chance.permutation(30).astype(float).tolist(), ["all"] * 30))


@pytest.fixture(scope="module")
def whole(tiny_folder):
    recipe = Recipe("{text}", "{text}", [View(None)])
    return Embedder.from_pretrained(tiny_folder("llama"), recipe=recipe, dtype="float32", device="cpu")


@pytest.mark.parametrize("kind", [None, "tp", "bidirectional"])
def test_cosines_of_every_exit_are_the_embedders(whole, objective, kind):
    (template,), prepend = (PROMPT.templates, None) if kind is None else PROMPT.arm(kind, 1, 2)
    found = PairStates(whole.backbone, [objective, objective]).cosines([template], prepend)
    for exit_ in (2, 3, 4):
        embedder = whole.with_recipe(Recipe(template, template, [View(exit_)], prepend))
        vectors = embedder.embed_documents(objective.documents)
        for map_, mapped in (("none", vectors), ("center", vectors - vectors.mean(axis=0))):
            units = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
            for of_set in found[map_]:
                assert of_set[exit_ - 1] == pytest.approx(objective.cosines(None, units), abs=1e-5)


def test_intervals_are_those_of_the_bootstrap(objective):
    gold, chance = np.array(objective.dataset.scores), np.random.default_rng(1)
    one, other = gold + chance.normal(0, 8, 30), gold + chance.normal(0, 20, 30)
    samples = Resamples([gold])
    got = estimate(samples.spearman([one]) - samples.spearman([other]))
    want = bootstrap(lambda rows: spearman(one[rows], gold[rows]) - spearman(other[rows], gold[rows]), 30)
    assert (got["value"], got["low"], got["high"]) == pytest.approx((want.value, want.low, want.high), abs=1e-3)
    assert spearman_of_rows(np.stack([one, other]), gold) == pytest.approx(
        [100 * stats.spearmanr(values, gold).statistic for values in (one, other)]
    )


def test_a_pair_gains_by_the_ranks_it_comes_nearer():
    scores, off, on = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.4, 0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3, 0.4])
    assert complexity.pair_gains(on, off, scores) == pytest.approx(np.array([3, 1, 1, 1]) / 4)


def test_scope_and_exit_are_chosen_on_one_part_and_no_exit_lies_before_the_scopes_end(whole, objective):
    states = PairStates(whole.backbone, [objective])
    signals = scopes.all_signals(states, PROMPT, [(1, 2), (1, 3), (2, 9)], ("tp",))["none"]
    assert list(signals) == [(None, 0, 0), ("tp", 1, 2), ("tp", 1, 3)]
    chosen, rows = scopes.choose(signals, [objective], ("tp",)), objective.held_out
    scored = {
        (arm, exit_): spearman(of_sets[0][exit_ - 1, rows], np.array(objective.dataset.scores)[rows])
        for arm, of_sets in signals.items()
        for exit_ in range(max(arm[2], 1), 5)
    }
    best = {on: max((key for key in scored if bool(key[0][0]) is on), key=scored.__getitem__) for on in (False, True)}
    assert (chosen["off", "best"], chosen["tp", "best"]) == (best[False], best[True])
    assert chosen["off", "last"] == ((None, 0, 0), 4)


def test_attention_is_that_of_transformers_and_early_tokens_see_late_ones_by_the_slot_alone(whole, tiny_folder, objective):
    (template,), prepend = PROMPT.arm("tp", 1, 2)
    texts, backbone = objective.documents[:3], whole.backbone
    plain = attention._Arm(attention._rows(backbone, PROMPT.templates[0], texts, None), None)
    found = attention._attention(backbone, plain)
    model = AutoModel.from_pretrained(tiny_folder("llama"), dtype=torch.float32, attn_implementation="eager").eval()
    for row, got in zip(plain.rows, found, strict=True):
        with torch.inference_mode():
            weights = model(torch.tensor([row.ids]), output_attentions=True, use_cache=False).attentions
        for block, weight in enumerate(weights):
            text = weight[0, :, row.text[0] : row.text[1]].double().numpy()  # (heads, text, T)
            entropy = stats.entropy(text, axis=-1) / np.log(np.arange(row.text[0], row.text[1]) + 1)
            assert got[block] == pytest.approx([0, 0, 0, text[..., 0].mean(), entropy.mean()], abs=1e-4)
    assert attention._influence(backbone, plain).max() < 1e-5
    rewired = attention._Arm(attention._rows(backbone, template, texts, Prepend("tp", 1, 2)), prepend)
    seen = attention._influence(backbone, rewired)
    assert seen[:, 0].max() < 1e-5
    assert seen[:, 1:].min() > 1e-5
