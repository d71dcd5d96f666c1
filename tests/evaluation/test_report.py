"""The page that tuning writes: every value in its place, and none read as HTML."""

import json

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tp_retrieval import Recipe
from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation import report
from tp_retrieval.evaluation.metrics import Estimate
from tp_retrieval.evaluation.tuning.log import PromptResult
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate
from tp_retrieval.evaluation.tuning.tuner import Comparison, FrontierPoint, Tuned
from tp_retrieval.evaluation.tuning.view_search import ViewCandidate

RECIPE = Recipe('Q <é> "{text}"', 'P & "{text}"', [View(2)])


SHALLOW = Recipe('Q "{text}"', 'P "{text}"', [View(1, "mean", "within:8", 0.6), View(2, "last", "none", 0.4, 512)])
FRONTIER = [
    FrontierPoint(SHALLOW, 1, 98.7, Estimate(49.4, 40, 60), Estimate(0.7, -1, 2)),
    FrontierPoint(RECIPE, 2, 12.3, Estimate(50.1, 40.2, 60.3), Estimate(0, 0, 0)),
]


def page(tmp_path, gain, *, kept_start=False, sets=("one",)):
    curves = {"last, none": {"1": 20.0, "None": 10.0}}
    alone = ViewCandidate((View(2),), 1.0, 0.5, np.zeros(1))
    pair = ViewCandidate((View(2, "last", "none", 0.3), View(None, "mean", "whiten:128", 0.7)), 0.4, 0.51234, np.zeros(1))
    prompts = (PromptCandidate("as <it> was", "Q", "P"), PromptCandidate("b & 'c'", "<PST>", "<PST>", Prepend("tp", 1, 2)))
    results = [
        PromptResult(prompts[0], False, 1.2, [alone], curves),
        PromptResult(prompts[1], False, 3.4, [pair], curves),
        PromptResult(prompts[1], True, 5.6, [pair], curves, alone),
    ]
    compared = Comparison(Estimate(50.1, 40.2, 60.3), Estimate(45, 40, 50), gain)
    tuned = Tuned(RECIPE, compared, dict.fromkeys(sets, compared), kept_start, 12, 24, 3.6, FRONTIER, results)
    files = report.write(tuned, tmp_path / "r.json", "Search on <here> & 'there'")
    assert [file.name for file in files] == [
        "r.json",
        "r.fast.json",
        "r.frontier.png",
        "r.exits.png",
        "r.scopes.png",
        "r.html",
    ]
    assert Recipe.load(tmp_path / "r.fast.json") == SHALLOW
    return BeautifulSoup((tmp_path / "r.html").read_text(), "html.parser")


def cells(table):
    return [[" ".join(cell.get_text().split()) for cell in row.find_all(["td", "th"])] for row in table.find_all("tr")]


@pytest.mark.parametrize(
    ("gain", "kept_start", "words"),
    [
        (
            Estimate(5.1, 1.0, 9.0),
            False,
            "That is +5.1 over the recipe tuning began with (45.0 [40.0, 50.0]), 95% from +1.0 to +9.0.",
        ),
        (Estimate(5.1, -1.0, 9.0), False, "95% from -1.0 to +9.0: too few items to be sure that it is more than chance."),
        (Estimate(-5.1, -9, 1), True, "The best recipe found scores 50.1 [40.2, 60.3] there, -5.1, so it stays as it was."),
    ],
)
def test_the_verdict_says_what_the_gain_is_worth(tmp_path, gain, kept_start, words):
    shown = page(tmp_path, gain, kept_start=kept_start)
    figure, verdict = (" ".join(p.get_text().split()) for p in shown.find_all("p")[:2])
    score = "45.0 [40.0, 50.0]" if kept_start else "50.1 [40.2, 60.3]"
    assert figure == f"{score} on 12 items that were held out"
    assert words in verdict
    assert "Found by 24 other items, in 4 minutes;" in verdict


def test_names_and_recipe_are_text_and_every_row_is_there(tmp_path):
    shown = page(tmp_path, Estimate(5, 1, 9), sets=("s<1>", "s&2"))
    assert shown.title.get_text() == shown.h1.get_text() == "Search on <here> & 'there'"
    assert json.loads(shown.pre.get_text()) == RECIPE.to_dict()
    sets, costs, prompts = shown.find_all("table")
    numbers = ["50.1 [40.2, 60.3]", "45.0 [40.0, 50.0]", "5.0 [1.0, 9.0]"]
    assert cells(sets) == [["set", "score", "before", "gain"], ["s<1>", *numbers], ["s&2", *numbers]]
    pair = "last at 2, none (0.3) + mean at the final norm, whiten:128 (0.7)"
    shallow = "mean at 1, within:8 (0.6) + last at 2, none (0.4; read of 512 documents)"
    assert cells(costs) == [
        ["blocks", "documents/s", "held out", "below the tuned", "views"],
        ["1", "99", "49.4 [40.0, 60.0]", "0.7", shallow],
        ["2", "12", "50.1 [40.2, 60.3]", "0.0", "last at 2, none (1)"],
    ]
    assert cells(prompts) == [
        ["arm", "data", "best views", "dense share", "score", "seconds"],
        ["b & 'c'", "all", pair, "0.4", "51.2", "6"],
        ["b & 'c'", "sample", pair, "0.4", "51.2", "3"],
        ["as <it> was", "sample", "last at 2, none (1)", "–", "50.0", "1"],
    ]
    assert len(page(tmp_path, Estimate(5, 1, 9)).find_all("table")) == 2
