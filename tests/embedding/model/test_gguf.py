"""GGUF files: what is unpacked, when, and where it is kept."""

import hashlib
import json
import os
import shutil
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from tests import gguf_files
from tp_retrieval import Embedder, ModelNotFoundError, OutOfMemoryError, Recipe, Reranker
from tp_retrieval.embedding.model import gguf
from tp_retrieval.embedding.model.gguf_parts import GgufParts
from tp_retrieval.embedding.recipe import View

TEXTS = ["the heat of the hen", "other", "at the end the other then"]


def recipe(exit_):
    return Recipe("{text} in one word", "{text}", [View(exit_)])


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def whole(file, dtype=torch.float32):
    """Return the weights as transformers unpacks them."""
    packed = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=dtype, quantization_config=packed
    )
    return model.state_dict()


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {}),
        ("llama", {"tied": False}),
        ("llama", {"quantized": False}),
        ("gemma3", {}),
        ("qwen3moe", {"experts": 4, "tied": False}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_those_that_transformers_unpacks(cache, tmp_path, architecture, options, dtype):
    file = gguf_files.write(tmp_path / "tiny.gguf", architecture, **options)
    folder = gguf.unpacked(file, dtype=dtype)
    got, want = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict(), whole(file, dtype)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert {weights.dtype for weights in got.values()} == {dtype}


def test_an_architecture_without_a_table_of_names_is_loaded_by_transformers(cache, tmp_path, monkeypatch):
    def unknown(*args):
        raise NotImplementedError("Unknown gguf model_type")

    for tied in (True, False):
        file = gguf_files.write(tmp_path / f"{tied}.gguf", "llama", tied=tied)
        want = whole(file)
        monkeypatch.setattr("tp_retrieval.embedding.model.gguf_parts.get_gguf_hf_weights_map", unknown)
        got = transformers.AutoModelForCausalLM.from_pretrained(gguf.unpacked(file)).state_dict()
        assert all(torch.equal(got[name], want[name]) for name in want)
        monkeypatch.undo()
        monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "cache"))


def test_only_the_blocks_that_a_recipe_reads_are_unpacked_and_others_later(cache, tmp_path):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama", tied=False)
    shallow = Embedder.from_pretrained(file, recipe=recipe(1), dtype="float32", device="cpu")
    (described,) = (path for path in cache.iterdir() if path.is_dir())

    def parts():
        return sorted(path.name for path in (described / "tiny-float32").glob("*.safetensors"))

    assert parts() == ["block-00000.safetensors", "embeddings.safetensors"]
    first = shallow.embed_documents(TEXTS)
    deep = Embedder.from_pretrained(file, recipe=recipe(3), dtype="float32", device="cpu")
    assert parts() == [*(f"block-0000{i}.safetensors" for i in range(3)), "embeddings.safetensors"]
    assert np.array_equal(deep.with_recipe(recipe(1)).embed_documents(TEXTS), first)
    scores = Reranker(deep).score("the heat", TEXTS)
    assert "head.safetensors" in parts()
    plain = transformers.AutoModelForCausalLM.from_pretrained(described / "tiny-float32")
    wrapped = Embedder.from_model(plain, transformers.AutoTokenizer.from_pretrained(described), recipe=recipe(3))
    assert np.array_equal(wrapped.embed_documents(TEXTS), deep.embed_documents(TEXTS))
    assert np.allclose(Reranker(wrapped).score("the heat", TEXTS), scores, atol=1e-5)


def test_a_tokenizer_that_takes_words_apart_is_refused(cache, tmp_path, monkeypatch, smol_folder):
    """As transformers 5.17 makes of Gemma's files: its merges are lost, and a text becomes letters."""
    file = gguf_files.write(tmp_path / "model.gguf", "llama")
    whole = transformers.AutoTokenizer.from_pretrained(smol_folder)
    state = json.loads(whole.backend_tokenizer.to_str())
    for merges in (state["model"]["merges"], []):
        state["model"]["merges"] = merges
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, made=tokenizer, **__: made)
        if merges:
            gguf.described(file)
            shutil.rmtree(cache)
        else:
            with pytest.raises(ModelNotFoundError, match=r"reads its tokenizer wrongly \(the word '\w+' .* [1-9]\d tokens"):
                gguf.described(file)


def test_the_file_is_read_for_its_digest_once_until_it_changes(cache, tmp_path, monkeypatch):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama")
    read, digest = [], hashlib.file_digest

    def counted(*args):
        read.append(1)
        return digest(*args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    first = gguf.described(file)
    assert gguf.described(file) == first
    assert len(read) == 1
    shutil.copy(file, tmp_path / "copy.gguf")
    os.replace(tmp_path / "copy.gguf", file)  # another inode, the same content
    assert gguf.described(file) == first
    assert len(read) == 2
    gguf_files.write(file, "llama", seed=1)
    assert gguf.described(file) != first
    (cache / "digests.json").write_text("{")
    assert gguf.described(file) != first


def test_two_at_once_unpack_a_file_together(cache, tmp_path):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama")
    folders, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: folders.append(gguf.unpacked(file))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert len(set(folders)) == 1
    got = transformers.AutoModelForCausalLM.from_pretrained(folders[0]).state_dict()
    assert all(torch.equal(got[name], weights) for name, weights in whole(file).items())


def test_what_was_half_unpacked_is_unpacked_again(cache, tmp_path, monkeypatch):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama")
    read = GgufParts._read

    def interrupted(self, name):
        if name == "block-00001.safetensors":
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(GgufParts, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gguf.unpacked(file)
    monkeypatch.setattr(GgufParts, "_read", read)
    got = transformers.AutoModelForCausalLM.from_pretrained(gguf.unpacked(file)).state_dict()
    assert all(torch.equal(got[name], weights) for name, weights in whole(file).items())


@pytest.fixture
def unpacked_folder(cache, tmp_path):
    """Return a file, the folder of its weights, and a call that loads it and embeds."""
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama", tied=False)

    def vectors():
        return Embedder.from_pretrained(file, recipe=recipe(3), dtype="float32", device="cpu").embed_documents(TEXTS)

    want = vectors()
    (folder,) = cache.glob("tiny-*/tiny-float32")
    return folder, vectors, want


def _cut(file):
    file.write_bytes(file.read_bytes()[:100])


DAMAGES = {
    "index is no JSON": lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
    "index is a list": lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
    "index is empty": lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
    "a part is cut": lambda folder: _cut(folder / "block-00001.safetensors"),
    "a part is gone": lambda folder: (folder / "embeddings.safetensors").unlink(),
    "another file": lambda folder: (folder / "zz.safetensors").write_text("nothing"),
    "digests are a list": lambda folder: (folder.parents[1] / "digests.json").write_text("[]"),
    "the description is gone": lambda folder: (folder.parent / "config.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_mended(unpacked_folder, damage):
    folder, vectors, want = unpacked_folder
    DAMAGES[damage](folder)
    assert np.array_equal(vectors(), want)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_description_that_is_no_more_is_named_with_the_folder_to_remove(unpacked_folder, name):
    folder, vectors, _ = unpacked_folder
    (folder.parent / name).write_text("{")
    with pytest.raises(ModelNotFoundError, match=f"unpacked from .*tiny.gguf into {folder.parent}; remove that folder"):
        vectors()


def test_a_file_that_was_replaced_gives_no_mixture_of_two_models(cache, tmp_path):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama", tied=False)
    shallow = Embedder.from_pretrained(file, recipe=recipe(1), dtype="float32", device="cpu")
    gguf_files.write(file, "llama", tied=False, seed=1)
    with pytest.raises(ModelNotFoundError, match=r"tiny\.gguf changed since its model was loaded"):
        Reranker(shallow)


def test_a_relative_path_is_found_again_from_another_folder(cache, tmp_path, monkeypatch):
    gguf_files.write(tmp_path / "tiny.GGUF", "llama", tied=False)
    monkeypatch.chdir(tmp_path)
    shallow = Embedder.from_pretrained("tiny.GGUF", recipe=recipe(1), dtype="float32", device="cpu")
    monkeypatch.chdir("/")
    assert np.isfinite(Reranker(shallow).score("the heat", TEXTS)).all()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("value", [0, 1, 3, 7, 1000])
@pytest.mark.parametrize(
    "field", ["embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv"]
)
def test_numbers_that_contradict_each_other_are_one_line(cache, tmp_path, field, value):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama")
    data = bytearray(file.read_bytes())
    at = data.index(f"llama.{field}".encode()) + len(f"llama.{field}") + 4
    data[at : at + 4] = value.to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises((ModelNotFoundError, OutOfMemoryError)) as error:
        Embedder.from_pretrained(file, recipe=recipe(3), dtype="float32", device="cpu").embed_documents(TEXTS)
    assert "\n" not in str(error.value)


def test_a_full_disk_and_one_file_of_several_are_refused_with_the_remedy(cache, tmp_path, monkeypatch):
    file = gguf_files.write(tmp_path / "tiny.gguf", "llama")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(1000))
    with pytest.raises(ModelNotFoundError, match=r"takes 0\.0 GB, and 0\.0 GB are free .*set TP_RETRIEVAL_CACHE"):
        gguf.unpacked(file)
    monkeypatch.undo()
    part = gguf_files.write(tmp_path / "part-00001-of-00002.gguf", "llama", files=2)
    with pytest.raises(ModelNotFoundError, match="one of 2 files of a model; merge them"):
        Embedder.from_pretrained(part, recipe=recipe(1))


def test_a_file_that_is_none_is_named(cache, tmp_path):
    for content in (b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"no model at all, but some text that is longer"):
        (tmp_path / "broken.gguf").write_bytes(content)
        with pytest.raises(ModelNotFoundError, match=r"broken\.gguf can't be read as a GGUF model"):
            Embedder.from_pretrained(tmp_path / "broken.gguf", recipe=recipe(1))


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder is the platform's own")
@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"TP_RETRIEVAL_CACHE": "/first", "XDG_CACHE_HOME": "/second"}, "/first"),
        ({"TP_RETRIEVAL_CACHE": "near"}, "near"),
        ({"XDG_CACHE_HOME": "/second"}, "/second/tp_retrieval"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/tp_retrieval"),
        ({}, "/home/someone/.cache/tp_retrieval"),
    ],
)
def test_the_cache_folder(monkeypatch, environment, folder):
    for name in ("TP_RETRIEVAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environment}.items():
        monkeypatch.setenv(name, value)
    assert gguf._cache() == Path(folder)
