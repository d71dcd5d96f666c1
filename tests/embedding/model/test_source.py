"""Where a model comes from: what transformers is asked for, which weights come back, and the line about a failure."""

import logging
import socket

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from tp_retrieval import Embedder, InputError, ModelNotFoundError, OptionalDependencyError, OutOfMemoryError, Recipe
from tp_retrieval.embedding.model import backbone, gguf, source
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.embedding.recipe import View

RECIPE = Recipe("{text}", "{text}", [View(1)])
SMALL = {"vocab_size": 49152, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture
def tokenizer(smol_folder):
    return transformers.AutoTokenizer.from_pretrained(smol_folder)


@pytest.fixture
def folder(tokenizer, tmp_path):
    """Return a folder with a small random Llama."""
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("model", ["no/such-model", "/no/such/folder", "no-such-file.gguf"])
def test_a_model_that_can_not_be_had_is_one_line_that_says_what_to_do(model):
    with pytest.raises(ModelNotFoundError) as error:
        Embedder.from_pretrained(model, recipe=RECIPE, local_files_only=True)
    assert model.rpartition("/")[2] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_default_is_the_hub_id(monkeypatch):
    monkeypatch.setattr(gguf, "EMBEDDED_PACKAGE", "no-such-package")
    model = ModelSource.find(None)
    assert (model.name, model.origin) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)


def test_a_hub_id_a_folder_and_a_gguf_file_are_named_by_what_the_caller_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "described", lambda file: tmp_path / "cache" / file.stem)
    hub = ModelSource.find("owner/name", revision="main")
    assert (hub.name, hub.location, hub.origin, hub.revision) == ("owner/name", "owner/name", "owner/name", "main")
    local = ModelSource.find("model")
    assert (local.name, local.location, local.origin) == ("model", "model", str(tmp_path / "model"))
    file = ModelSource.find(tmp_path / "small.gguf")
    assert (file.name, file.location) == ("small", str(tmp_path / "cache" / "small"))
    assert (file.origin, file.packed) == (str(tmp_path / "small.gguf"), tmp_path / "small.gguf")


@pytest.mark.parametrize(
    ("kwargs", "places"),
    [
        ({}, False),
        ({"attn_implementation": "eager"}, False),
        ({"device_map": "auto"}, True),
        ({"quantization_config": 1}, True),
    ],
)
def test_who_places_the_weights(kwargs, places):
    assert ModelSource("m", "m", model_kwargs=kwargs).places_itself is places


@pytest.mark.parametrize(("address", "asked", "local"), [(True, False, False), (True, True, True), (False, False, True)])
def test_the_hub_is_asked_only_where_it_has_an_address_and_may_be(monkeypatch, address, asked, local):
    calls = []
    monkeypatch.setattr(source, "_hub_has_an_address", lambda: address)
    monkeypatch.setattr(source.AutoConfig, "from_pretrained", lambda *args, **options: calls.append((args, options)))
    ModelSource("n", "no/such", revision="v1", local_files_only=asked, trust_remote_code=True).config()
    assert calls == [(("no/such",), {"revision": "v1", "local_files_only": local, "trust_remote_code": True})]


def test_the_hub_has_an_address_if_its_name_resolves_or_a_proxy_does_so(monkeypatch):
    names, resolves = [], True

    def resolve(name, port):
        names.append((name, port))
        if not resolves:
            raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(source.urllib.request, "getproxies", dict)
    monkeypatch.setattr(source, "HUB", "https://hub.example/path")
    answer = source._hub_has_an_address.__wrapped__
    assert answer() is True
    resolves = False
    assert answer() is False
    assert names == [("hub.example", 443)] * 2
    monkeypatch.setattr(source.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    assert answer() is True
    assert len(names) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head", [False, True], ids=["without head", "with head"])
def test_weights_are_those_of_the_file_in_the_type_asked_for(folder, dtype, head):
    stored = load_file(folder / "model.safetensors")
    model = ModelSource.find(folder)
    loaded = model.weights(model.config(), dtype, head=head).state_dict()
    assert ("lm_head.weight" in loaded) is head
    for name, tensor in loaded.items():
        assert torch.equal(tensor, stored[name if head else f"model.{name}"].to(dtype)), name


def test_a_configuration_of_fewer_blocks_loads_those_alone_and_quietly(folder, caplog):
    model = ModelSource.find(folder)
    config = model.config()
    config.num_hidden_layers = 1
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_warning()
    with caplog.at_level(logging.WARNING, logger="transformers"):
        blocks = {name.split(".")[1] for name in model.weights(config, torch.float32).state_dict() if "layers" in name}
        assert transformers_logging.get_verbosity() == transformers_logging.WARNING
    assert blocks == {"0"}
    assert caplog.records == []
    transformers_logging.set_verbosity(before)
    assert transformers_logging.is_progress_bar_enabled()


def test_the_tokenizer_is_that_of_the_folder(folder, tokenizer):
    assert ModelSource.find(folder).tokenizer()("A dog, 12!").input_ids == tokenizer("A dog, 12!").input_ids


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        Embedder.from_pretrained(folder, recipe=RECIPE)


def test_missing_weights_are_an_error_not_random_numbers(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match=r"1 weights are missing or misshapen, .*up_proj"):
        Embedder.from_pretrained(folder, recipe=RECIPE)


def test_truncated_weights_are_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelNotFoundError, match="can't load the model"):
        Embedder.from_pretrained(folder, recipe=RECIPE)


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_long_reason_is_one_line_with_the_remedy(monkeypatch, error):
    with pytest.raises(ModelNotFoundError) as raised:
        failing(monkeypatch, error("a\n  b " + "c" * 500)).tokenizer()
    assert str(raised.value).startswith("can't load the model 'the name': ")
    assert str(raised.value).endswith(f"`{gguf.EMBEDDED_INSTALL}` (a b {'c' * 500})")


def test_a_missing_package_is_what_the_error_says(monkeypatch):
    with pytest.raises(ModelNotFoundError) as raised:
        failing(monkeypatch, ImportError("Loading an AWQ model\n requires gptqmodel: pip install gptqmodel")).tokenizer()
    assert (
        str(raised.value)
        == "can't load the model 'the name': Loading an AWQ model requires gptqmodel: pip install gptqmodel"
    )
    missing = ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes`")
    with pytest.raises(OptionalDependencyError, match=r"bitsandbytes is not installed. Run: .*tp-retrieval\[quantized\]"):
        failing(monkeypatch, missing).tokenizer()


def failing(monkeypatch, error):
    """Return a model whose tokenizer can't be loaded, for a reason."""

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(source.AutoTokenizer, "from_pretrained", fail)
    return ModelSource("the name", "/no/such", local_files_only=True)


@pytest.mark.parametrize("address", ["http://localhost:11434", "https://example.org/v1"])
def test_a_server_is_refused_with_what_it_lacks_and_what_can_be_done(address):
    with pytest.raises(ModelNotFoundError, match=r"is a server, which gives no states between .*OpenAIEmbedder"):
        Embedder.from_pretrained(address, recipe=RECIPE)


def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(backbone, "free_memory", lambda device: 1000)
    with pytest.raises(
        OutOfMemoryError, match=r"takes 0\.\d GB as float32 and does not fit in the 0\.0 GB .*--load-in 4bit"
    ):
        Embedder.from_pretrained(folder, recipe=RECIPE, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("out of memory")]
)
def test_memory_that_runs_out_while_loading_is_said(folder, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(ModelSource, "weights", fail)
    with pytest.raises(OutOfMemoryError, match="does not fit in the"):
        Embedder.from_pretrained(folder, recipe=RECIPE, device="cpu")


def test_other_errors_of_loading_stay_what_they_are(folder, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(ModelSource, "weights", fail)
    with pytest.raises(RuntimeError, match="something else"):
        Embedder.from_pretrained(folder, recipe=RECIPE, device="cpu")


NOT_HERE = ["cuda:7", "mps", "xpu", "mtia", "hpu:3", "meta", "cpu:7", "privateuseone"]


@pytest.mark.parametrize(("device", "said"), [*((name, "not available here") for name in NOT_HERE), ("gpu", "is none")])
def test_a_device_that_is_not_here_is_named_with_those_that_are(folder, device, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"device: '{device}' .*{said}.*there are .*cpu"):
        Embedder.from_pretrained(folder, recipe=RECIPE, device=device)


@pytest.mark.parametrize("device_map", ["cuda:9", {"": "cuda:9"}, [1], 5.5])
def test_a_device_map_to_what_is_not_here_is_named(folder, device_map, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device"):
        Embedder.from_pretrained(folder, recipe=RECIPE, model_kwargs={"device_map": device_map})


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float4_e2m1fn_x2", "int8", "no"])
def test_a_type_that_no_model_computes_in_is_named(folder, dtype):
    with pytest.raises(InputError, match=f"dtype: '{dtype}' must be auto, float32, bfloat16 or float16"):
        Embedder.from_pretrained(folder, recipe=RECIPE, dtype=dtype)
