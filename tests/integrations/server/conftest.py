"""A server over a tiny model and a small index, asked without any socket."""

import pytest
from fastapi.testclient import TestClient

from tests import tiny
from tp_retrieval import Document, Embedder, Index, Reranker
from tp_retrieval.integrations.server import Settings, create_app

TEXTS = [f"The {thing} {deed}." for thing in ("whale", "bread", "bridge", "guitar") for deed in ("sings", "is old", "fell")]

HOSTS = ["testserver"]
"""What the test client writes into a Host header."""


@pytest.fixture(scope="session")
def whole(tiny_folder):
    """The tiny model with its LM head."""
    return Embedder.from_pretrained(tiny_folder("llama"), recipe=tiny.RECIPE, dtype="float32", device="cpu", whole=True)


@pytest.fixture(scope="session")
def folder(whole, tmp_path_factory):
    place = tmp_path_factory.mktemp("served") / "things"
    with Index.create(place, whole) as index:
        index.add([Document(text, {"number": i}, f"d{i}") for i, text in enumerate(TEXTS)])
    return place


@pytest.fixture(scope="session")
def reranker(whole):
    return Reranker(whole)


@pytest.fixture
def client(whole, folder):
    with TestClient(create_app(whole, {"things": folder}, allowed_hosts=HOSTS)) as client:
        yield client


@pytest.fixture
def serving(whole, folder):
    """Return a client of a server with settings of one's own."""
    opened = []

    def start(settings=None, **options):
        options = {"allowed_hosts": HOSTS} | options
        opened.append(TestClient(create_app(whole, {"things": folder}, settings=settings or Settings(), **options)))
        return opened[-1].__enter__()

    yield start
    for one in opened:
        one.__exit__(None, None, None)
