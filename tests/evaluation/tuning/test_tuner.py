"""Sweeps, objectives, the search over views, tuning that resumes, and ablation, each against a slower way."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tp_retrieval import Document, Index, InputError, Recipe
from tp_retrieval.embedding.maps import within
from tp_retrieval.embedding.maps.affine import attainable
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation import metrics, report
from tp_retrieval.evaluation.ablate import ablate
from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs
from tp_retrieval.evaluation.evaluate import evaluate_retrieval, evaluate_sts
from tp_retrieval.evaluation.objectives.multi_dataset import combined
from tp_retrieval.evaluation.objectives.objective import estimate
from tp_retrieval.evaluation.objectives.retrieval import RetrievalObjective
from tp_retrieval.evaluation.objectives.sts import StsObjective
from tp_retrieval.evaluation.sweep import States, Sweep
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate, prompts, rewirings
from tp_retrieval.evaluation.tuning.tuner import Tuner
from tp_retrieval.evaluation.tuning.view_search import ViewCandidate, ViewSearch, ViewSearchResult, _Single, frontier
from tp_retrieval.indexing.search.query import DENSE_WEIGHT

SLOTTED = 'This passage : <PST> "{text}" means in one word:"'


@pytest.mark.parametrize("prepend", [None, Prepend("tp", 1, 2)])
def test_a_sweep_reads_what_an_embedder_of_one_view_gives(embedder, faq, prepend):
    template = SLOTTED if prepend else SLOTTED.replace("<PST> ", "")
    texts = list(faq.documents.values())
    sweep = Sweep(embedder)
    states = sweep.states(template, prepend, texts)
    sweep.close()
    assert states.exits == (0, 1, 2, 3, 4, None)
    for exit_ in states.exits:
        for readout in ("last", "mean", "last+mean"):
            recipe = Recipe(template, template, [View(exit_, readout), View(4)], prepend)  # a scope needs its depth
            want = embedder.with_recipe(recipe).embed_documents(texts)[:, :32]
            assert np.allclose(states.view(exit_, readout), want, atol=1e-5), (exit_, readout)


def test_no_choice_sees_what_is_held_out(faq, pairs):
    for objective in (RetrievalObjective(faq), StsObjective(pairs)):
        held, seen = set(objective.held_out), set(objective.chosen_by)
        assert not held & seen
        assert len(held) == objective.count // 3
        texts = objective.texts_of_items()
        asked = {texts[i] for i in held}
        assert seen == {i for i in range(objective.count) if texts[i] not in asked}
        assert len(seen) > objective.count / 2
    objective = RetrievalObjective(faq)
    sample = objective.sample(5)
    held = {objective.queries[i] for i in objective.held_out}
    assert len(sample.queries) == len(sample.chosen_by) == 5
    assert len(sample.held_out) == 0
    assert not held & set(sample.queries)
    assert {f"d{q[1:]}" for q in sample.dataset.queries} <= set(sample.dataset.documents)
    part = StsObjective(pairs).sample(7)
    unseen = {(pairs.first[i], pairs.second[i], pairs.scores[i]) for i in StsObjective(pairs).held_out}
    seen = [(pairs.first[i], pairs.second[i], pairs.scores[i]) for i in StsObjective(pairs).chosen_by]
    drawn = list(zip(part.dataset.first, part.dataset.second, part.dataset.scores, strict=True))
    assert all(one in seen for one in drawn)
    assert len(drawn) == 7
    assert unseen


def test_several_sets_have_an_equal_say_each_with_its_own_map(faq):
    chance = np.random.default_rng(3)
    few = RetrievalSet("few", *(dict(list(part.items())[:12]) for part in (faq.documents, faq.queries, faq.grades)))
    parts = [RetrievalObjective(faq), RetrievalObjective(few)]
    both = combined(parts)
    queries, documents = (chance.normal(size=(n, 8)).astype(np.float32) for n in (36, 60))
    signal = both.signal(both.compare(queries, documents, "center"), 0.4)
    alone = [
        part.signal(part.compare(queries[q], documents[d], "center"), 0.4)
        for part, q, d in zip(parts, (slice(24), slice(24, None)), (slice(48), slice(48, None)), strict=True)
    ]
    assert np.allclose(signal, np.concatenate(alone))
    assert both.score(signal, np.arange(36)) == pytest.approx((alone[0].mean() + alone[1].mean()) / 2)
    assert both.score(signal, np.arange(30, 36)) == pytest.approx(alone[1][6:].mean())
    held = [*parts[0].held_out, *(24 + parts[1].held_out)]
    assert list(both.held_out) == held
    assert sorted([*held, *both.chosen_by]) == list(range(36))
    sample = both.sample(8)
    assert {name: len(items) for name, items in sample.sets.items()} == {"faq": 4, "few": 4}
    assert set(sample.queries) <= {both.queries[i] for i in both.chosen_by}
    with pytest.raises(InputError, match="same name"):
        combined([parts[0], parts[0]])


@pytest.mark.slow
def test_tuning_on_two_tables_reports_both(start, pairs, tmp_path):
    columns = (pairs.first, pairs.second, pairs.scores, pairs.subsets)
    more = StsPairs("more", *(column[::-1][:18] for column in columns))
    objective = combined([StsObjective(pairs), StsObjective(more)])
    tuned = Tuner(start, objective, "sts", budget_minutes=0).run()
    for data in (pairs, more):
        scores = evaluate_sts(start.with_recipe(tuned.recipe), data)
        want = 100 * scores.correlation(StsObjective(data).held_out)
        compared = tuned.sets[data.name]
        assert (compared.start if tuned.kept_start else compared.score).value == pytest.approx(want, abs=0.2)
    together = np.mean([one.score.value for one in tuned.sets.values()])
    assert tuned.together.score.value == pytest.approx(together)
    report.write(tuned, tmp_path / "recipe.json", "Both")
    page = (tmp_path / "recipe.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in (pairs.name, "more"))


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_retrievals_signal_is_what_an_index_scores(faq, tmp_path, weight):
    chance = np.random.default_rng(0)
    documents, queries = (chance.normal(size=(n, 16)).astype(np.float32) for n in (48, 24))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    objective = RetrievalObjective(faq)
    signal = objective.signal(objective.cosines(queries, documents), weight)

    class Given:
        dimension, fingerprint = 16, "given"

        def embed_queries(self, texts):
            return np.stack([queries[objective.queries.index(text)] for text in texts])

    with Index.create(tmp_path / "i", Given(), kind="flat") as index:
        index.add([Document(text, {}, id_) for id_, text in faq.documents.items()], vectors=documents)
        mode = "dense" if weight == 1 else "hybrid"
        found = index.search(list(faq.queries.values()), 10, mode=mode, dense_weight=weight)
    run = {query: [str(hit.document.id) for hit in hits] for query, hits in zip(faq.queries, found, strict=True)}
    assert np.allclose(signal, metrics.retrieval(run, faq.grades)["ndcg@10"])


def test_sts_signal_and_score(pairs):
    objective = StsObjective(pairs)
    vectors = np.random.default_rng(1).normal(size=(len(objective.documents), 8)).astype(np.float32)
    place = {text: i for i, text in enumerate(objective.documents)}
    want = [vectors[place[a]] @ vectors[place[b]] for a, b in zip(pairs.first, pairs.second, strict=True)]
    signal = objective.signal(objective.cosines(vectors, vectors), 1.0)
    assert np.allclose(signal, want, atol=1e-5)
    rows = objective.held_out
    want = stats.spearmanr(signal[rows], np.array(pairs.scores)[rows]).statistic
    assert objective.score(signal, rows) == pytest.approx(want)


def test_the_search_finds_the_planted_pair_of_views(faq):
    chance = np.random.default_rng(2)
    exits = (1, 2, None)
    documents, queries = (chance.normal(size=(3, 2, n, 32)).astype(np.float32) for n in (48, 24))
    for place in ((1, 0), (2, 1)):  # the last token at exit 2 and the mean at the final norm know, each in part
        queries[place] = documents[place][:24] + 2 * queries[place]
    objective = RetrievalObjective(faq, dense_weights=(1.0,))
    search = ViewSearch(objective, States(exits, queries), States(exits, documents))
    found = search.run(thorough=True)
    best = found.best[0]
    assert {(view.exit, view.readout) for view in best.views} == {(2, "last"), (None, "mean")}
    singles = {(name.split(",")[0], exit_): s for name, curve in found.curves.items() for exit_, s in curve.items()}
    assert set(sorted(singles, key=lambda one: -singles[one])[:2]) == {("last", "2"), ("mean", "None")}
    assert 100 * best.score > max(singles.values())
    assert np.allclose(search.candidate(best.views, 1.0).signal, best.signal)
    assert found.frontier[0].blocks(2) == 1  # the best of the first exit, however many others score higher
    assert 100 * found.frontier[0].score == pytest.approx(max(curve["1"] for curve in found.curves.values()))


def test_a_sampled_view_is_scored_as_by_an_index_that_reads_a_sample(embedder, faq, monkeypatch):
    for name in ("SAMPLE", "SAMPLE_ASYMMETRIC"):
        monkeypatch.setattr(within, name, 16)
    views = (View(1, "mean", "within:4", 0.6), View(4, "last", "within:4", 0.4, 16))
    recipe = Recipe('A question : "{text}" is:"', 'A passage : "{text}" is:"', views)
    objective, sweep = RetrievalObjective(faq, folded=False), Sweep(embedder)
    queries = sweep.states(recipe.query[0].source, None, objective.queries)
    documents = sweep.states(
        recipe.document[0].source, None, objective.documents, query=recipe.query[0].source, sampled=objective.sampled
    )
    search = ViewSearch(objective, queries, documents)
    scored = search.candidate(views, 0.5)
    whole = search.candidate((views[0], replace(views[1], sample=None)), 0.5)
    sweep.close()
    indexed = evaluate_retrieval(embedder.with_recipe(recipe), faq, dense_weight=0.5)
    assert np.allclose(scored.signal, indexed.values["hybrid"]["ndcg@10"])
    assert not np.allclose(scored.signal, whole.signal)
    assert (scored.blocks(4), whole.blocks(4)) == (1, 4)


def candidate(score, *exits, sample=None):
    views = [View(exit_) for exit_ in exits[:-1]] + [View(exits[-1], sample=sample)]
    return ViewCandidate(tuple(views), 0.5, score, np.zeros(1))


def test_the_frontier_is_what_no_cheaper_candidate_equals():
    given = [
        candidate(0.9, 1, None),
        candidate(0.5, 1),
        candidate(0.6, 1, None, sample=512),
        candidate(0.55, 2),
        candidate(0.7, 3),
        candidate(0.7, 2, 4),
    ]
    assert [one.score for one in frontier(given, 6)] == [0.6, 0.7, 0.9]
    assert [one.blocks(6) for one in frontier(given, 6)] == [1, 3, 6]


def test_no_recipe_is_shallower_than_its_prepending(embedder, faq):
    rewired = PromptCandidate("as it was", '<PST> "{text}"', '<PST> "{text}"', Prepend("tp", 1, 3))
    begin = embedder.with_recipe(rewired.recipe([View(4)], Recipe("{text}", "{text}", [View(4)])))
    tuned = Tuner(begin, RetrievalObjective(faq), "retrieval", budget_minutes=0).run()
    for point in tuned.frontier:
        exits = [4 if view.exit is None else view.exit for view in point.recipe.views]
        assert point.recipe.prepend is None or max(exits) >= point.recipe.prepend.stop


def test_arms_are_the_papers_prompts_and_rewirings_have_slots():
    sts = {arm.name: arm.document for arm in prompts("sts")}
    assert sts["prompteol"] == Recipe.load("prompteol").document[0].source
    assert sts["cot"] == Recipe.load("cot").document[0].source
    assert sts["ke"] == Recipe.load("ke").document[0].source
    assert sts["icl"] == Recipe.load("icl").document[0].source
    rewired = prompts("sts")[1].rewired("both", 1, 2)
    assert rewired.document == Recipe.load("prompteol-tp").document[0].source
    default = Recipe.load("retrieval", "SmolLM2-135M-Instruct")
    assert (default.query[0].source, default.document[0].source) == (
        prompts("retrieval")[0].query,
        prompts("retrieval")[0].document,
    )
    for arm in rewirings("retrieval", prompts("retrieval")[0], 4):
        assert arm.prepend.stop < 4
        arm.recipe([View(4)], default)  # which is checked when it is made
    assert len({arm.key for arm in [*prompts("retrieval"), *rewirings("retrieval", prompts("retrieval")[0], 30)]}) == 15


@pytest.fixture
def start(embedder):
    """The tiny model with a recipe to begin with."""
    template = 'This {} : "{{text}}" means in one word:"'
    return embedder.with_recipe(
        Recipe(template.format("question"), template.format("passage"), [View(4, "last", "center")])
    )


@pytest.mark.slow
def test_the_tuned_score_is_what_the_recipe_scores_on_the_held_out_questions(start, faq, tmp_path):
    objective = RetrievalObjective(faq)
    tuned = Tuner(start, objective, "retrieval", folder=tmp_path, budget_minutes=60).run()
    for recipe, score in ((tuned.recipe, tuned.score), (start.recipe, tuned.together.start)):
        views = [replace(view, postprocess=attainable(view.postprocess, 32, 48)) for view in recipe.views]
        fitted = start.with_recipe(replace(recipe, views=views)).fit(list(faq.documents.values()))
        share = recipe.dense_weight or DENSE_WEIGHT
        scores = evaluate_retrieval(fitted, faq, dense_weight=share).values["hybrid"]["ndcg@10"]
        assert score.value == pytest.approx(100 * scores[objective.held_out].mean(), abs=1e-6)
    assert tuned.recipe.dense_weight is not None or tuned.kept_start
    assert (tuned.held_out, tuned.chosen_by) == (8, 16)
    assert [point.blocks for point in tuned.frontier] == sorted({point.blocks for point in tuned.frontier})
    assert all(point.texts_a_second > 0 for point in tuned.frontier)
    assert tuned.frontier[-1].below_tuned.value == 0
    assert tuned.fast in [point.recipe for point in tuned.frontier]
    names = [one.prompt.name for one in tuned.results]
    assert names[0] == "as it was"
    assert {"one example", "two examples", "cot", "ke"} <= set(names)
    assert any("tp 1..2 on queries" in name for name in names)
    assert sum(one.full for one in tuned.results) == 3


def test_the_tuned_sts_recipe_scores_what_it_says(start, pairs):
    objective = StsObjective(pairs)
    tuned = Tuner(start, objective, "sts", budget_minutes=0).run()
    scores = evaluate_sts(start.with_recipe(tuned.recipe), pairs)
    assert tuned.score.value == pytest.approx(100 * scores.correlation(objective.held_out), abs=0.2)
    assert tuned.recipe.dense_weight is None
    assert tuned.kept_start == (tuned.together.gain.value <= 0)
    assert [one.full for one in tuned.results] == [False, False, True, True]  # the least: two, twice


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_repeats_nothing(start, faq, tmp_path, monkeypatch):
    done = []
    original = Sweep.states

    def counted(self, template, prepend, texts, bar=None, **options):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append((template, len(texts)))
        return original(self, template, prepend, texts, bar, **options)

    monkeypatch.setattr(Sweep, "states", counted)
    tuner = Tuner(start, RetrievalObjective(faq), "retrieval", folder=tmp_path, budget_minutes=60)
    with pytest.raises(KeyboardInterrupt):
        tuner.run()
    lines = (tmp_path / "arms.jsonl").read_text().splitlines()
    assert len(lines) == 2
    (tmp_path / "arms.jsonl").write_text("\n".join(lines) + '\n{"key": "cut sh')  # as a kill leaves it
    monkeypatch.setattr(Sweep, "states", original)
    finished = Tuner(start, RetrievalObjective(faq), "retrieval", folder=tmp_path, budget_minutes=60).run()
    texts = []
    monkeypatch.setattr(Sweep, "states", lambda *given, **_: texts.append(given))
    again = Tuner(start, RetrievalObjective(faq), "retrieval", folder=tmp_path, budget_minutes=60).run()
    assert texts == []
    assert (again.recipe, again.together, again.sets) == (finished.recipe, finished.together, finished.sets)
    other = RetrievalSet(faq.name, faq.documents, faq.queries, {**faq.grades, "q0": {"d1": 1}})
    with pytest.raises(AttributeError):  # the sweep gives nothing now
        Tuner(start, RetrievalObjective(other), "retrieval", folder=tmp_path, budget_minutes=60).run()
    assert texts  # what was kept is of other judgements, and is not used
    fresh = [json.loads(line)["arm"]["name"] for line in (tmp_path / "arms.jsonl").read_text().splitlines()]
    assert fresh[:2] == ["as it was", "one example"]
    assert len(fresh) == len(finished.results)


@pytest.mark.slow
def test_a_changed_start_is_scored_again_and_not_taken_for_the_one_before(start, faq, tmp_path):
    given = {"folder": tmp_path, "budget_minutes": 0}
    Tuner(start, RetrievalObjective(faq), "retrieval", **given).run()
    for change in ({"dense_weight": 0.0}, {"dense_weight": 1.0}, {"views": [View(4, "last", "none")]}):
        other = start.with_recipe(replace(start.recipe, **change))
        again = Tuner(other, RetrievalObjective(faq), "retrieval", **given).run()
        fresh = Tuner(other, RetrievalObjective(faq), "retrieval", budget_minutes=0).run()
        assert again.together == fresh.together
    signal = RetrievalObjective(faq)
    words = signal.score(signal.signal(np.zeros((24, len(faq.documents)), np.float32), 0.0), signal.held_out)
    silent = start.with_recipe(replace(start.recipe, dense_weight=0.0))
    assert Tuner(silent, RetrievalObjective(faq), "retrieval", **given).run().together.start.value == pytest.approx(
        100 * words
    )


def test_damaged_results_are_measured_again(start, faq, tmp_path, caplog):
    first = Tuner(start, RetrievalObjective(faq), "retrieval", folder=tmp_path, budget_minutes=0).run()
    log = tmp_path / "arms.jsonl"
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join([b"garbage", b'{"key": 1}', b"\xff\xfe", b"[]", *lines[1:]]))
    again = Tuner(start, RetrievalObjective(faq), "retrieval", folder=tmp_path, budget_minutes=0).run()
    assert again.together == first.together
    assert [f"line {i}:" in record.getMessage() for i, record in enumerate(caplog.records, 1)] == [True] * 4


def test_a_best_that_falls_short_is_reported_as_it_is(start, pairs, monkeypatch):
    monkeypatch.setattr(StsObjective, "score", lambda self, signal, rows: float(signal[rows].mean()))

    def falls(self, *, thorough):
        good = np.full(len(pairs.scores), 0.9)
        good[self._objective.held_out] = 0.1
        return ViewSearchResult([ViewCandidate((View(1),), 1.0, 1.0, good)], {})

    monkeypatch.setattr(ViewSearch, "run", falls)
    monkeypatch.setattr(
        ViewSearch, "candidate", lambda self, views, weight: ViewCandidate(views, 1.0, 0.5, np.full(12, 0.5))
    )
    pairs = replace_pairs(pairs, 12)
    lines = []
    tuned = Tuner(start, StsObjective(pairs), "sts", budget_minutes=0, on_progress=lines.append).run()
    assert (tuned.kept_start, tuned.recipe) == (True, start.recipe)
    assert (tuned.score.value, tuned.together.score.value) == (pytest.approx(50), pytest.approx(10))
    assert tuned.together.gain.value == pytest.approx(-40)
    assert len(lines) == 4
    assert lines[0].startswith("as it was: 100.0 on a sample; 0.0 of 0 minutes")


def replace_pairs(pairs, count):
    """Return so many pairs of different texts."""
    texts = [f"text {i}" for i in range(count)]
    return StsPairs(pairs.name, texts, texts, pairs.scores[:count], pairs.subsets[:count])


def test_every_set_needs_items_of_both_kinds(start, faq, pairs):
    few = RetrievalSet("few", *(dict(list(part.items())[:4]) for part in (faq.documents, faq.queries, faq.grades)))
    with pytest.raises(InputError, match="few: 4 items are too few"):
        Tuner(start, combined([RetrievalObjective(faq), RetrievalObjective(few)]), "retrieval")
    with pytest.raises(InputError, match="pairs: too few items"):
        ablate(start, StsObjective(replace_pairs(pairs, 2)), "sts")


def test_an_interval_over_two_sets_draws_within_each(faq):
    few = RetrievalSet("few", *(dict(list(part.items())[:6]) for part in (faq.documents, faq.queries, faq.grades)))
    objective = combined([RetrievalObjective(faq), RetrievalObjective(few)])
    signal = np.concatenate([np.zeros(24), np.ones(6)])  # one number a set: a stratified draw can't change the mean
    found = estimate(objective, signal, np.arange(30))
    assert (found.value, found.low, found.high) == (50, 50, 50)


def test_the_search_keeps_few_matrices(faq):
    sizes = []
    search = ViewSearch(RetrievalObjective(faq), None, None)
    search._scored = lambda views, cosines, weight: (
        sizes.append(0) or ViewCandidate(views, weight, len(sizes) % 7, cosines[0])
    )
    cosines = [np.full((24, 48), i, np.float32) for i in range(12)]
    singles = [_Single(1.0, View(i + 1), one) for i, one in enumerate(cosines)]
    tracemalloc.start()
    search._pairs(singles)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sizes) > 190
    assert peak < 12 * cosines[0].nbytes


def test_queries_and_documents_of_one_template_and_number_stay_apart(embedder):
    documents = {f"d{i}": f"a text about number {i} and its neighbours" for i in range(12)}
    queries = {f"q{i}": f"number {i}?" for i in range(12)}
    data = RetrievalSet("even", documents, queries, {f"q{i}": {f"d{i}": 1} for i in range(12)})
    same = embedder.with_recipe(Recipe("{text}", "{text}", [View(4, "mean")]))
    objective = RetrievalObjective(data, dense_weights=(1.0,))
    tuned = Tuner(same, objective, "retrieval", budget_minutes=0).run()
    scores = evaluate_retrieval(same, data).values["dense"]["ndcg@10"]
    assert tuned.together.start.value == pytest.approx(100 * scores[objective.held_out].mean())


def test_what_can_not_be_tuned_is_refused(start, faq):
    several = replace(start.recipe, query=start.recipe.query * 2)
    with pytest.raises(InputError, match="not with several"):
        Tuner(start.with_recipe(several), RetrievalObjective(faq), "retrieval")
    few = RetrievalObjective(faq).sample(5)
    with pytest.raises(InputError, match="too few"):
        Tuner(start, few, "retrieval")


@pytest.mark.slow
def test_the_report_stands_alone_and_shows_the_score(start, pairs, tmp_path):
    tuned = Tuner(start, StsObjective(pairs), "sts", budget_minutes=60).run()
    files = report.write(tuned, tmp_path / "recipe.json", "Similarity <here>")
    assert [file.name for file in files] == [
        "recipe.json",
        "recipe.fast.json",
        "recipe.frontier.png",
        "recipe.exits.png",
        "recipe.scopes.png",
        "recipe.html",
    ]
    assert Recipe.load(tmp_path / "recipe.json") == tuned.recipe
    page = (tmp_path / "recipe.html").read_text()
    assert "Similarity &lt;here&gt;" in page
    assert str(tuned.together.score) in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    for one in tuned.results:
        assert one.prompt.name in page


@pytest.mark.slow
def test_ablation_reads_every_arm_at_the_last_exit_and_at_the_best(start, pairs):
    objective = StsObjective(pairs)
    rows = ablate(start, objective, "sts", scope=(1, 2))
    assert len(rows) == 20
    plain = Recipe.load("prompteol").document
    scores = evaluate_sts(start.with_recipe(Recipe(plain, plain, [View(4)])), pairs)
    assert rows[0].score.value == pytest.approx(100 * scores.correlation(objective.chosen_by), abs=0.2)
    assert (rows[0].arm, rows[0].exit, rows[0].gain.value) == ("prompteol", 4, 0)
    by_exit = {}
    for exit_ in (1, 2, 3, 4):
        one = evaluate_sts(start.with_recipe(Recipe(plain, plain, [View(exit_)])), pairs)
        by_exit[exit_] = one.correlation(objective.held_out)
    assert rows[1].exit == max(by_exit, key=by_exit.get)
    assert [row.chosen for row in rows] == [False, True] * 10
    for row in rows:
        assert row.gain.value == pytest.approx(row.score.value - rows[0].score.value)
    scored = {(row.arm, row.chosen): row.score.value for row in rows}
    added = {(row.arm, row.chosen): row.prepending.value for row in rows if row.prepending is not None}
    assert added == {
        (f"{name}, {kind} 1..2", chosen): pytest.approx(scored[f"{name}, {kind} 1..2", chosen] - scored[name, chosen])
        for name in ("prompteol", "icl")
        for kind in ("tp", "bidirectional")
        for chosen in (False, True)
    }
    assert all(value != 0 for (_, chosen), value in added.items() if not chosen)  # the best exit may precede the scope
    with pytest.raises(InputError, match=r"scope: 3\.\.9 must lie within the model's 4 blocks"):
        ablate(start, objective, "sts", scope=(3, 9))


def test_an_arms_key_tells_what_it_does():
    one = PromptCandidate("a", "{text}", "{text}")
    assert one.key == PromptCandidate("b", "{text}", "{text}").key
    assert one.key != one.rewired("both", 1, 2).key or "<PST>" not in one.rewired("both", 1, 2).query
