"""The options that say how a model is loaded: the same at every command, and kept by an index."""

import json
import re

import numpy as np
import pytest
import torch
from typer.main import get_command

from tp_retrieval import Index, InputError
from tp_retrieval.cli.main import app
from tp_retrieval.cli.model_options import LoadingOptions, ModelOptions

LOADING = {"--device", "--dtype", "--load-in", "--model-arg"}
WITH_A_MODEL = [
    *("index", "rerank", "embed", "serve", "embed-corpus", "analyze", "evaluate sts", "evaluate retrieval"),
    *("evaluate classification", "ablate sts", "ablate retrieval", "tune sts", "tune retrieval"),
]
OF_AN_INDEX = ["search", "rebuild"]


def options_of(command):
    found = get_command(app)
    for name in command.split():
        found = found.commands[name]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize("command", WITH_A_MODEL)
def test_every_command_that_loads_a_model_takes_how(command):
    assert options_of(command) >= LOADING | {"--model"}


@pytest.mark.parametrize("command", OF_AN_INDEX)
def test_every_command_that_loads_the_model_of_an_index_takes_how(command):
    assert options_of(command) >= LOADING
    assert "--model" not in options_of(command)


def test_arguments_are_json_where_they_can_be():
    asked = LoadingOptions(model_arg=["device_map=auto", "low_cpu_mem_usage=true", 'max_memory={"0": "1GB"}', "n=a=b"])
    assert asked.model_kwargs == {
        "device_map": "auto",
        "low_cpu_mem_usage": True,
        "max_memory": {"0": "1GB"},
        "n": "a=b",
    }
    assert ModelOptions(load_in="8bit").model_kwargs["quantization_config"]["load_in_8bit"] is True


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(["device_map"], "must be KEY=VALUE"), (["a b=1"], "KEY=VALUE"), (["n=1", "n=2"], "n is given twice")],
)
def test_an_argument_that_is_none_is_named(wrong, said):
    with pytest.raises(InputError, match=said):
        dict(LoadingOptions(model_arg=wrong).model_kwargs)


@pytest.mark.slow
def test_an_index_of_a_quantised_model_is_made_and_searched(run, docs, tmp_path, recipe):
    options = ("--recipe", recipe, "--load-in", "4bit", "--dtype", "float32", "--device", "cpu")
    code, _, err = run("index", docs, "--into", tmp_path / "index", "--chunk-tokens", 64, *options)
    assert code == 0, err
    with Index.open(tmp_path / "index") as opened:
        blocks = opened.embedder.backbone.blocks
        assert type(blocks[0].mlp.up_proj).__name__ == "Linear4bit"
        assert opened.embedder.backbone.dtype == torch.float32
    code, out, err = run("search", tmp_path / "index", "whales", "--mode", "dense", "--device", "cpu", "--json")
    assert code == 0, err
    assert len(json.loads(out)["hits"]) == 5
    code, _, err = run("index", docs, "--into", tmp_path / "index", "--chunk-tokens", 64)
    assert code == 0, err
    text = tmp_path / "texts.txt"
    text.write_text("A whale.\nA river.\n")
    vectors = []
    for how in (("--load-in", "4bit"), ()):
        code, _, err = run("embed", text, "--role", "query", "--output", tmp_path / "v.npy", "--recipe", recipe, *how)
        assert code == 0, err
        vectors.append(np.load(tmp_path / "v.npy"))
    assert 1e-3 < np.abs(vectors[0] - vectors[1]).max() / np.abs(vectors[1]).max() < 0.5


def test_what_can_not_be_is_one_line(run, tmp_path, recipe):
    text = tmp_path / "texts.txt"
    text.write_text("A whale.\n")
    asked = ("embed", text, "--role", "query", "--output", tmp_path / "v.npy", "--recipe", recipe)
    for options, said in [
        (("--device", "cuda:99"), r"device: 'cuda:99' is not available here.*there are .*cpu"),
        (("--device", "abacus"), r"device: 'abacus' is none; there are .*cpu"),
        (("--model-arg", "oops"), "--model-arg: 'oops' must be KEY=VALUE"),
        (("--model", "http://localhost:8000/v1"), "is a server, which gives no states"),
        (("--model-arg", "no_such_argument=1"), "no_such_argument"),
    ]:
        code, out, err = run(*asked, *options)
        assert (code, out) == (2, ""), err
        assert re.search(said, err), err
        assert err.startswith("tp-retrieval: ")
        assert err.count("\n") == 1
