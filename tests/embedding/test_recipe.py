import json

import pytest

from tp_retrieval import Recipe, RecipeError
from tp_retrieval.embedding.recipe import Prepend, View

PLAIN = "{text}"
SLOTTED = "<PST> {text}"
NAMED = [
    "prompteol",
    "prompteol-tp",
    "cot",
    "cot-tp",
    "ke",
    "ke-tp",
    "icl",
    "icl-tp",
    "metaeol-tp",
    "mean",
    "sts",
    "retrieval",
]


def valid(**changes):
    base = {
        "format": 1,
        "query": SLOTTED,
        "document": SLOTTED,
        "clean": True,
        "prepend": {"kind": "tp", "start": 1, "stop": 2},
        "views": [{"exit": 28, "readout": "last", "postprocess": "whiten:256", "weight": 1.0}],
        "max_tokens": 512,
    }
    return {key: value for key, value in (base | changes).items() if value is not ...}


@pytest.mark.parametrize("name", NAMED)
def test_every_named_recipe_survives_the_way_through_json(name):
    recipe = Recipe.load(name)
    assert Recipe.from_dict(json.loads(recipe.to_json())) == recipe


def test_the_published_templates_are_the_papers():
    assert Recipe.load("prompteol").query[0].source == 'This sentence : "{text}" means in one word:"'
    assert Recipe.load("prompteol-tp").query[0].source == 'This sentence : <PST> "{text}" means in one word:"'
    assert Recipe.load("cot-tp").query[0].source == (
        'After thinking step by step , this sentence : <PST> "{text}" means in one word:"'
    )
    assert Recipe.load("ke").document[0].source == (
        "The essence of a sentence is often captured by its main subjects and actions, while descriptive terms provide "
        'additional but less central details. With this in mind , this sentence : "{text}" means in one word:"'
    )


def test_a_recipe_measured_for_a_model_wins_over_the_general_one():
    assert Recipe.load("sts").views[0].exit == -1
    measured = Recipe.load("sts", "hub/SmolLM2-135M-Instruct")
    assert measured != Recipe.load("sts")
    assert len(measured.views) == 2


@pytest.mark.parametrize(
    ("data", "field", "value"),
    [
        (valid(prepend=None), "prepend", "<PST>"),
        (valid(query=PLAIN, document=PLAIN), "prepend", "<PST>"),
        (valid(prepend={"kind": "tp", "start": 2, "stop": 2}), "prepend.stop", "2"),
        (valid(prepend={"kind": "tp", "start": 1, "stop": 99}), "prepend.stop", "99"),
        (valid(prepend={"kind": "up", "start": 1, "stop": 2}), "prepend.kind", "up"),
        (valid(prepend={"kind": "tp", "start": -1, "stop": 2}), "prepend.start", "-1"),
        (valid(prepend={"kind": "tp", "start": 1, "stop": 2, "x": 1}), "prepend.x", "unknown"),
        (valid(prepend=[1]), "prepend", "[1]"),
        (valid(views=[]), "views", "[]"),
        (valid(views={}), "views", "{}"),
        (valid(views=["last"]), "views", "last"),
        (valid(views=[{"exit": -2}]), "views.exit", "-2"),
        (valid(views=[{"exit": True}]), "views.exit", "true"),
        (valid(views=[{"exit": 28, "readout": "first"}]), "views.readout", "first"),
        (valid(views=[{"exit": 28, "postprocess": "whiten:0"}]), "views.postprocess", "whiten:0"),
        (valid(views=[{"exit": 28, "weight": 0}]), "views.weight", "0"),
        (valid(views=[{"exit": 28, "weight": float("nan")}]), "views.weight", "NaN"),
        (valid(views=[{"readout": "last"}]), "views.exit", "missing"),
        (valid(max_tokens=0), "max_tokens", "0"),
        (valid(clean=1), "clean", "1"),
        (valid(format=2), "format", "2"),
        (valid(format=...), "format", "missing"),
        (valid(surprise=1), "surprise", "unknown"),
        (valid(query=[]), "query", "[]"),
        (valid(document="no text"), "document", "no text"),
        (valid(document=3), "document", "3"),
    ],
)
def test_a_contradiction_is_refused_naming_field_and_value(data, field, value):
    with pytest.raises(RecipeError, match=field.replace(".", r"\.")) as error:
        Recipe.from_dict(data)
    assert value in str(error.value)


def test_exits_are_resolved_against_the_models_depth():
    recipe = Recipe(PLAIN, PLAIN, [View(3), View(-1), View(None)])
    assert recipe.exits(12) == (3, 11, None)
    assert recipe.depth(12) == 12
    assert Recipe(PLAIN, PLAIN, [View(3), View(-1)]).depth(12) == 11


def test_an_exit_or_a_scope_beyond_the_model_is_refused():
    with pytest.raises(RecipeError, match=r"views\.exit: 13 must be at most 12"):
        Recipe(PLAIN, PLAIN, [View(13)]).exits(12)
    with pytest.raises(RecipeError, match=r"prepend\.stop: 12 must be at most the deepest exit, 11"):
        Recipe(SLOTTED, SLOTTED, [View(-1)], Prepend("tp", 1, 12)).exits(12)


def test_a_file_is_named_when_it_is_broken(tmp_path):
    file = tmp_path / "r.json"
    with pytest.raises(RecipeError, match="can't read"):
        Recipe.load(file)
    file.write_text("{")
    with pytest.raises(RecipeError, match=r"r\.json is not JSON"):
        Recipe.load(file)
    file.write_text(json.dumps(valid(max_tokens=-1)))
    with pytest.raises(RecipeError, match=r"r\.json: max_tokens: -1"):
        Recipe.load(file)
    with pytest.raises(RecipeError, match="known are cot, cot-tp"):
        Recipe.load("nonsense")


def test_raw_recipes_are_equal_when_only_maps_and_weights_differ():
    one = Recipe(PLAIN, PLAIN, [View(3, "last", "center", 2.0)])
    other = Recipe(PLAIN, PLAIN, [View(3, "last", "whiten:8")])
    assert one != other
    assert one.raw() == other.raw()


def test_whether_a_recipe_was_measured_for_a_model_is_known():
    assert Recipe.is_measured("sts", "hub/SmolLM2-135M-Instruct.Q4_1")
    assert not Recipe.is_measured("sts", "other/model")
    assert not Recipe.is_measured("prompteol", "hub/SmolLM2-135M-Instruct")


def test_echo_has_no_scope():
    template = "Rewrite: <PST>. Rewritten: {text}"
    recipe = Recipe(template, template, [View(2, "mean")], Prepend("echo"))
    assert recipe.to_dict()["prepend"] == {"kind": "echo"}
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match=r"prepend\.start: 1 must be left out"):
        Prepend("echo", 1, 2)
    with pytest.raises(RecipeError, match=r"prepend\.stop: missing"):
        Recipe.from_dict(recipe.to_dict() | {"prepend": {"kind": "tp", "start": 1}})


def test_the_share_of_the_dense_score_is_no_matter_of_vectors():
    plain = Recipe("{text}", "{text}", [View(2)])
    weighed = Recipe("{text}", "{text}", [View(2)], dense_weight=0.6)
    assert "dense_weight" not in plain.to_dict()
    assert Recipe.from_dict(weighed.to_dict()) == weighed
    assert weighed.raw() == plain
    with pytest.raises(RecipeError, match=r"dense_weight: 2 must be from 0 to 1"):
        Recipe("{text}", "{text}", [View(2)], dense_weight=2)
