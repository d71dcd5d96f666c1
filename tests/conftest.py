import asyncio
import gc
import os
import sys

import pytest

from tests import tiny
from tests.toy import ToyEmbedder
from tp_retrieval import Embedder


def pytest_collection_finish():
    """Leave the objects of what was imported out of every garbage collection: there are millions."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def toy():
    return ToyEmbedder()


@pytest.fixture(scope="session")
def smol():
    """The embedded model in float32 with the default retrieval recipe."""
    return Embedder.from_pretrained(dtype="float32")


@pytest.fixture(scope="session")
def smol_model():
    """The embedded model as transformers loads it, whole, and its tokenizer; for references."""
    from transformers import AutoModel, AutoTokenizer

    from tp_retrieval.embedding.model import gguf

    folder = gguf.unpacked(gguf.embedded_model())
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def smol_folder():
    from tp_retrieval.embedding.model import gguf

    return gguf.unpacked(gguf.embedded_model())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, smol_folder):
    """Return the folder of a tiny random model of a kind, made once."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            tiny.save(kind, made[kind], smol_folder)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def embedder(tiny_folder):
    """A tiny Llama of which half is loaded."""
    return Embedder.from_pretrained(tiny_folder("llama"), recipe=tiny.RECIPE, dtype="float32", device="cpu")


@pytest.fixture
def closed_loop():
    """The event loop that LlamaIndex's synchronous calls take; one that they make themselves is never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def run_blocks(tiny_folder, tmp_path, monkeypatch, closed_loop):
    """Return a function that runs a page's blocks of Python with a tiny model, by the page's name and text."""
    from tests.snippets import Runner

    with open(os.devnull) as nothing:  # what a server over stdin reads
        monkeypatch.setattr(sys, "stdin", nothing)
        yield Runner(tiny_folder("llama"), tmp_path, monkeypatch).run
