"""The embeddings of a server in OpenAI's shape: roles, batches, order, and what a server may do wrong."""

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from tp_retrieval import CachedEmbedder, Document, Embedder, IncompatibleIndexError, Index, InputError, ModelNotFoundError
from tp_retrieval.integrations.openai import OpenAIEmbedder


class Server:
    """An endpoint whose vectors count letters; `asked` holds the requests."""

    def __init__(self):
        self.asked = []
        self.lost = 0
        self.app = FastAPI()
        self.app.post("/v1/embeddings")(self.embeddings)

    async def embeddings(self, request: Request):
        asked = await request.json()
        self.asked.append(asked)
        if asked["model"] != "letters":
            return JSONResponse({"error": {"message": f"no model {asked['model']}"}}, 404)
        size = asked.get("dimensions", 26)
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": [float(text.lower().count(chr(97 + j))) + 0.1 for j in range(size)],
            }
            for i, text in enumerate(asked["input"])
        ]
        return {
            "object": "list",
            "model": "letters",
            "data": data[::-1][self.lost :],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def made(server):
    def make(model="letters", **options):
        http = TestClient(server.app, raise_server_exceptions=False)
        client = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=http, max_retries=0)
        return OpenAIEmbedder("http://testserver/v1", model, client=client, **options)

    return make


def test_an_index_of_a_servers_vectors_is_searched_and_filtered(made, tmp_path):
    with Index.create(tmp_path / "index", made(batch=2)) as index:
        index.add([Document(text, {"n": i}, text) for i, text in enumerate(["zebra", "apple", "mmm", "kiwi", "oooo"])])
        assert index.search("zzz zebra", 1, mode="dense")[0].document.id == "zebra"
        assert index.search("zebra", 5, where={"n": {"$gte": 2}}, mode="dense")[0].document.id != "zebra"
    with Index.open(tmp_path / "index", made()) as index:
        assert index.search("apple", 1)[0].document.id == "apple"
    with pytest.raises(IncompatibleIndexError):
        Index.open(tmp_path / "index", made(query_prefix="query: "))
    with Index.open(tmp_path / "index") as index, pytest.raises(InputError, match=r"give it to Index\.open"):
        index.search("apple")


def test_roles_batches_and_order(made, server):
    embedder = made(query_prefix="q: ", document_prefix="d: ", batch=2, dimensions=3)
    assert embedder.dimension == 3
    server.asked.clear()
    vectors = embedder.embed_documents(["a", "bb", "ccc"])
    assert vectors.shape == (3, 3)
    assert np.allclose(np.diag(vectors), [1.1, 2.1, 3.1])
    assert [request["input"] for request in server.asked] == [["d: a", "d: bb"], ["d: ccc"]]
    assert all(request["dimensions"] == 3 and request["encoding_format"] == "float" for request in server.asked)
    embedder.embed_queries(["a"])
    assert server.asked[-1]["input"] == ["q: a"]
    assert embedder.embed_queries([]).shape == (0, 3)


def test_a_fingerprint_tells_models_apart_and_not_addresses(made):
    same = made().fingerprint
    assert made(batch=7).fingerprint == same
    others = [made(version="2"), made(query_prefix="q"), made(document_prefix="d"), made(dimensions=5)]
    assert len({same, *(other.fingerprint for other in others)}) == 5


def test_a_cache_asks_once(made, server, tmp_path):
    cached = CachedEmbedder(made(), tmp_path / "cache.sqlite")
    first = cached.embed_documents(["a", "b"])
    server.asked.clear()
    assert np.array_equal(cached.embed_documents(["b", "a"]), first[::-1])
    assert server.asked == []


def refuse(request):
    raise httpx.ConnectError("connection refused", request=request)


def test_what_a_server_does_wrong_is_one_line(made, server):
    with pytest.raises(
        ModelNotFoundError, match=r"http://testserver/v1 gives no embeddings of 'other': .*no model other"
    ) as error:
        made("other").embed_queries(["a"])
    assert "\n" not in str(error.value)
    nobody = httpx.Client(transport=httpx.MockTransport(refuse))
    silent = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0, http_client=nobody)
    with pytest.raises(ModelNotFoundError, match=r"does not answer \(connection refused\)"):
        OpenAIEmbedder("http://127.0.0.1:9/v1", "letters", client=silent).embed_queries(["a"])
    server.lost = 1
    with pytest.raises(InputError, match="gave 1 vectors for 2 texts"):
        made().embed_documents(["a", "b"])
    with pytest.raises(InputError, match="batch: 0"):
        made(batch=0)
    with pytest.raises(InputError, match=r"texts\[1\]"):
        made().embed_documents(["a", 1])


def test_our_own_server_is_one(tiny_folder, tmp_path):
    from tp_retrieval.integrations.server import create_app

    embedder = Embedder.from_pretrained(tiny_folder("llama"), recipe="prompteol", dtype="float32", device="cpu")
    with TestClient(create_app(embedder, {}, allowed_hosts=["testserver"])) as http:
        client = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=http)
        served = OpenAIEmbedder("http://testserver/v1", embedder.backbone.name.rpartition("/")[2], client=client)
        texts = ["a dog", "a river"]
        assert np.allclose(served.embed_documents(texts), embedder.normalize(embedder.embed_documents(texts)), atol=1e-6)
