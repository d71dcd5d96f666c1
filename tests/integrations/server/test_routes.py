"""Every route against the package itself; OpenAI's, LangChain's and Cohere's own clients, unmodified."""

import base64
import json
import re
from pathlib import Path

import cohere
import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from langchain_openai import OpenAIEmbeddings

from tests.integrations.server.conftest import HOSTS, TEXTS
from tp_retrieval import Embedder, Index, InputError, Recipe, Reranker
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.server import ApiKey, Limits, Settings, create_app
from tp_retrieval.integrations.server.batcher import Batcher

run = Batcher.run
PAGE = Path(create_app.__code__.co_filename).parent / "page"


def error_of(response):
    return response.status_code, response.json()["error"]["message"]


@pytest.fixture
def unit(whole):
    """What the embedder gives, of unit length."""
    return {
        "document": lambda texts: whole.normalize(whole.embed_documents(texts)),
        "query": lambda texts: whole.normalize(whole.embed_queries(texts)),
    }


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openais_client_gets_the_embedders_vectors(client, unit, whole, encoding):
    openais = openai.OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client)
    model = openais.models.list().data[0].id
    found = openais.embeddings.create(model=model, input=TEXTS, encoding_format=encoding)
    rows = [one.embedding for one in found.data]
    if encoding == "base64":  # asked for by name, it is not decoded for us
        rows = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]
    assert np.allclose(rows, unit["document"](TEXTS), atol=1e-5)
    assert [one.index for one in found.data] == list(range(12))
    assert found.usage.prompt_tokens == sum(whole.count_tokens(text) for text in TEXTS)
    by_default = openais.embeddings.create(model=model, input=TEXTS[0], extra_body={"input_type": "query"})
    assert np.allclose(by_default.data[0].embedding, unit["query"](TEXTS[:1])[0], atol=1e-5)
    assert not np.allclose(by_default.data[0].embedding, rows[0], atol=1e-2)  # the role decides


def test_langchains_openai_embeddings(client, unit, whole):
    name = whole.provenance.model
    embeddings = OpenAIEmbeddings(
        model=name,
        base_url="http://testserver/v1",
        api_key="none",
        http_client=client,
        check_embedding_ctx_length=False,
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), unit["document"](TEXTS), atol=1e-5)


def test_token_ids_are_refused_with_the_setting_to_change(client):
    for given in ([1, 2, 3], [[1, 2], [3]]):
        status, message = error_of(client.post("/v1/embeddings", json={"input": given}))
        assert status == 400
        assert "check_embedding_ctx_length=False" in message


def test_fewer_dimensions_are_the_first_ones_at_unit_length(client, unit):
    found = client.post("/v1/embeddings", json={"input": TEXTS[:3], "dimensions": 5}).json()
    want = unit["document"](TEXTS[:3])[:, :5]
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert np.allclose([one["embedding"] for one in found["data"]], want, atol=1e-5)
    status, message = error_of(client.post("/v1/embeddings", json={"input": "a", "dimensions": 10**6}))
    assert (status, "dimensions: 1000000 are more than" in message) == (400, True)


def test_nothing_in_nothing_out(client):
    assert client.post("/v1/embeddings", json={"input": []}).json()["data"] == []
    assert client.post("/v1/rerank", json={"query": "a", "documents": []}).json()["results"] == []


def test_a_text_given_twice_is_read_once(client):
    found = client.post("/v1/embeddings", json={"input": ["a b", "c", "a b"]}).json()
    rows = [one["embedding"] for one in found["data"]]
    assert rows[0] == rows[2] != rows[1]
    assert "tp_retrieval_step_items_sum 2.0" in client.get("/metrics").text


@pytest.mark.filterwarnings("ignore::tp_retrieval.TruncationWarning")
def test_the_batcher_counts_the_tokens_that_are_read(whole, folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        Batcher,
        "run",
        lambda self, kind, items, costs, **more: (
            asked.update({kind.split()[0]: costs}) or run(self, kind, items, costs, **more)
        ),
    )
    long = "word " * 3000
    with TestClient(create_app(whole, {"things": folder}, allowed_hosts=HOSTS)) as client:
        client.post("/v1/embeddings", json={"input": ["a", long]})
        client.post("/v1/rerank", json={"query": "a b c", "documents": ["a", long]})
    a, query = whole.count_tokens("a"), whole.count_tokens("a b c")
    assert asked["document"] == [a + 8, whole.recipe.max_tokens + 8]
    assert asked["rerank"] == [query + a + 8, 1024 + 8]


@pytest.mark.filterwarnings("ignore::tp_retrieval.TruncationWarning")
def test_what_was_cut_is_told(client, whole):
    long = "word " * 3000
    found = client.post("/v1/embeddings", json={"input": ["short", long]}).json()["usage"]
    assert found["cut_tokens"] == whole.cut_tokens([long], "document")[0] > 1000
    assert whole.cut_tokens(["short"], "document") == [0]


def test_a_fitted_embedders_vectors_are_served_as_they_are(whole, folder):
    fitted = whole.fit(TEXTS)
    with TestClient(create_app(fitted, settings=Settings(method=None), allowed_hosts=HOSTS)) as client:
        rows = client.post("/v1/embeddings", json={"input": TEXTS}).json()["data"]
    assert np.allclose([row["embedding"] for row in rows], fitted.embed_documents(TEXTS), atol=1e-5)


class _Bridge(httpx.BaseTransport):
    """Give Cohere's client, which wants another HTTP library, the server without a socket."""

    def __init__(self, client):
        self._client = client

    def handle_request(self, request):
        sent = {name: value for name, value in request.headers.items() if name != "host"}
        found = self._client.request(request.method, request.url.path, content=request.read(), headers=sent)
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_coheres_client_reranks(client, reranker, kind):
    coheres = kind("no key", base_url="http://testserver", httpx_client=httpx.Client(transport=_Bridge(client)))
    model = client.get("/v1/models").json()["data"][0]["id"]
    found = coheres.rerank(model=model, query="which whale sings?", documents=TEXTS, top_n=4).results
    scores = reranker.score("which whale sings?", TEXTS)
    order = np.argsort(-scores, kind="stable")[:4]
    assert [one.index for one in found] == order.tolist()
    assert np.allclose([one.relevance_score for one in found], scores[order], atol=1e-5)


def test_documents_may_be_objects_and_are_returned_when_asked_for(client):
    body = {"query": "which whale sings?", "documents": [{"text": text} for text in TEXTS], "return_documents": True}
    found = client.post("/v1/rerank", json=body).json()["results"]
    assert len(found) == 12
    assert all(one["document"]["text"] == TEXTS[one["index"]] for one in found)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_search_is_the_indexs_own(client, folder, whole, mode):
    asked = {"query": "old whale", "mode": mode, "k": 5, "where": {"number": {"$lt": 8}}, "index": "things"}
    found = client.post("/v1/search", json=asked).json()["hits"]
    with Index.open(folder, whole) as index:
        want = index.search("old whale", 5, mode=mode, where={"number": {"$lt": 8}})
    assert [one["id"] for one in found] == [hit.document.id for hit in want]
    assert np.allclose([one["score"] for one in found], [hit.score for hit in want], atol=1e-5)
    assert [one["metadata"] for one in found] == [dict(hit.document.metadata) for hit in want]
    assert all(one["text"] in TEXTS and one["parts"] for one in found)


def test_reranked_search_is_the_indexs_own(client, folder, whole):
    found = client.post("/v1/search", json={"query": "old whale", "k": 6, "rerank": True}).json()["hits"]
    with Index.open(folder, whole) as index:
        want = index.search("old whale", 6, rerank=Reranker(whole))
    assert [one["id"] for one in found] == [hit.document.id for hit in want]
    assert np.allclose([one["parts"]["rerank"] for one in found], [hit.parts["rerank"] for hit in want], atol=1e-4)


def test_an_index_of_a_model_with_more_blocks_is_searched_with_its_own(whole, smol_folder, tmp_path):
    deeper = Embedder.from_pretrained(smol_folder, recipe=Recipe("{text}", "{text}", [View(8)]))
    with Index.create(tmp_path / "other", deeper) as index:
        index.add(TEXTS)
    app = create_app(whole, {"other": tmp_path / "other"}, settings=Settings(method=None), allowed_hosts=HOSTS)
    with TestClient(app) as client:
        assert len(client.post("/v1/search", json={"query": "old whale", "k": 3, "mode": "dense"}).json()["hits"]) == 3


def test_a_search_sees_one_namespace(client, folder):
    with Index.open(folder) as index:
        index.add(["apples of theirs"], vectors=np.ones((1, index.info().dimension), np.float32), namespace="theirs")
        try:
            answer = client.post("/v1/search", json={"query": "apples", "namespace": "theirs"})
            assert [hit["text"] for hit in answer.json()["hits"]] == ["apples of theirs"]
            others = client.post("/v1/search", json={"query": "apples of theirs", "k": 100})
            assert "apples of theirs" not in [hit["text"] for hit in others.json()["hits"]]
        finally:
            index.clear(namespace="theirs")


def test_an_index_of_another_recipe_is_searched_with_its_own(whole, tmp_path):
    other = whole.with_recipe(Recipe("Query: {text}", "Text: {text}", [View(3, "mean")]))
    with Index.create(tmp_path / "other", other) as index:
        index.add(TEXTS)
        want = [hit.document.text for hit in index.search("old whale", 3, mode="dense")]
    with TestClient(create_app(whole, {"other": tmp_path / "other"}, allowed_hosts=HOSTS)) as client:
        hits = client.post("/v1/search", json={"query": "old whale", "k": 3, "mode": "dense"}).json()["hits"]
    assert [hit["text"] for hit in hits] == want


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("embeddings", {"input": "a", "model": "gpt-9"}, 404, "model: 'gpt-9' is not served here"),
        ("embeddings", {"input": {"a": 1}}, 400, "input: "),
        ("embeddings", {}, 400, "input: Field required"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format: "),
        ("embeddings", {"input": ["a"] * 7}, 413, "input: 7 texts; one request may have 6"),
        ("embeddings", {"input": ["a", "b" * 101]}, 413, "input[1]: 101 characters; a text may have 100"),
        ("embeddings", {"input": "\ud800"}, 400, "lone surrogate"),
        ("rerank", {"query": "b" * 101, "documents": ["a"]}, 413, "query: 101 characters"),
        ("embeddings", {"input": ["a", 5]}, 400, "input[1]: must be a text"),
        ("embeddings", {"input": ["a", {"text": 5}]}, 400, "input[1]: must be a text"),
        ("embeddings", {"input": None}, 400, "input: must be a list of texts"),
        ("rerank", {"query": "a", "documents": ["a"] * 7}, 413, "documents: 7 texts"),
        ("rerank", {"query": "a", "documents": ["a", {"body": "b"}]}, 400, "documents[1]: must be a text"),
        ("search", {"query": "a", "where": {"$or": [{"number": i} for i in range(20)]}}, 413, "where: over 30 values"),
        ("search", {"query": "a", "index": "nothing"}, 404, "index: 'nothing' is not served here; there are things"),
        ("search", {"query": "a", "k": 10**9}, 413, "k: 1000000000 hits; a search may have 50"),
        ("search", {"query": "a", "k": -1}, 400, "k: "),
        ("search", {"query": "a", "where": {"$no": 1}}, 400, "$no"),
        ("search", {"query": "a", "mmr": 2}, 400, "mmr: "),
        ("nowhere", {}, 404, "POST /v1/nowhere: Not Found"),
    ],
)
def test_mistakes_are_answered_in_openais_shape(serving, path, body, status, message):
    client = serving(Settings(Limits(texts=6, characters=100, hits=50, conditions=30)))
    response = client.post(f"/v1/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    found, text = error_of(response)
    assert found == status
    assert message in text


def test_broken_json(client):
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b""):
        response = client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
        assert (response.status_code, "error" in response.json()) == (400, True), content[:5]


def test_keys(serving):
    client = serving(api_keys=["first", "second"])
    assert error_of(client.get("/v1/models"))[0] == 401
    assert error_of(client.get("/v1/models", headers={"authorization": "Bearer first2"}))[0] == 401
    for key in ("first", "second"):
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert error_of(client.post("/v1/nowhere"))[0] == 401
    assert client.get("/health").status_code == 200  # for whoever restarts it
    assert client.get("/").status_code == 200
    for path in re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text):
        assert client.get(path).status_code == 200


def test_keys_of_an_app_under_a_path_of_another(whole):
    app = create_app(whole, settings=Settings(Limits(requests=0), method=None), api_keys=["key"])
    keyed = {"authorization": "Bearer key"}
    outer = FastAPI()
    outer.mount("/model", app)
    for client in (TestClient(outer), TestClient(app, root_path="/model")):
        assert client.get("/model/health").status_code == 200
        for path in ("/model/v1/models", "/model/v1/indexes", "/model/health/../v1/models"):
            assert client.get(path).status_code == 401
        assert client.post("/model/v1/embeddings", json={"input": "a"}).status_code == 401
        assert client.post("/model/v1/embeddings", json={"input": "a"}, headers=keyed).status_code == 429
    with TestClient(app):
        pass  # which ends its threads


def test_a_body_too_large_and_requests_too_many(serving):
    client = serving(Settings(Limits(body_bytes=1000)))
    status, message = error_of(client.post("/v1/embeddings", content=b"x" * 5000))
    assert (status, message) == (413, "the body has 5000 bytes; it may have 1000")
    client = serving(Settings(Limits(requests=0)))
    response = client.post("/v1/embeddings", json={"input": "a"})
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert client.get("/health").status_code == 200


def test_health_metrics_models_and_documents(client):
    client.post("/v1/embeddings", json={"input": ["a b", "c"]})
    client.get("/no/such/path")
    assert client.get("/health").json()["indexes"] == ["things"]
    assert client.get("/v1/indexes").json() == {"data": [{"name": "things", "documents": 12}]}
    page = client.get("/metrics").text
    assert 'tp_retrieval_requests_total{path="/v1/embeddings",status="200"} 1.0' in page
    assert 'tp_retrieval_requests_total{path="other",status="404"} 1.0' in page
    assert "tp_retrieval_step_items_sum 2.0" in page
    assert "tp_retrieval_waiting_tokens 0.0" in page
    assert set(client.get("/openapi.json").json()["paths"]) >= {"/v1/embeddings", "/v1/rerank", "/v1/search", "/health"}
    docs = client.get("/docs").text
    assert "https://" not in docs  # nothing from elsewhere: it works without the internet
    loaded = re.findall(r'(?:src|href)="([^"]+)"', docs)
    assert len(loaded) >= 3
    assert all(client.get(path).status_code == 200 for path in loaded)


def test_the_page_may_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    scripts = {path.name for path in PAGE.glob("*.js")}
    for name in {"search.css"} | scripts:
        response = client.get(f"/{name}")
        assert response.status_code == 200, name
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|HTMLUnsafe|eval\(", response.text), (
            name
        )
    imported = {name for path in PAGE.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', path.read_text())}
    assert imported | {"search.js"} == scripts
    assert not re.search(r"<style|style=|\son\w+=|<script>", page.text)


def test_a_search_renders_texts_when_asked_for(client):
    asked = {"query": "old whale", "k": 3}
    plain, page = (client.post("/v1/search", json=asked | {"render": render}).json()["hits"] for render in (False, True))
    assert all("html" not in hit for hit in plain)
    assert [hit["html"] for hit in page] == [f"<p>{hit['text']}</p>\n" for hit in plain]


def test_the_rights_of_a_key(serving):
    assert serving().get("/v1/access").json() == {
        "write": True, "namespace": None, "indexes": None, "reranks": True, "answers": True,
    }  # fmt: skip
    keys = [ApiKey("reader-key", write=False, indexes=("thing*",), namespace="alice"), "writer-key"]
    client = serving(Settings(method=None), api_keys=keys)
    assert client.get("/v1/access").status_code == 401
    reader, writer = (
        client.get("/v1/access", headers={"authorization": f"Bearer {name}-key"}).json() for name in ("reader", "writer")
    )
    assert reader == {"write": False, "namespace": "alice", "indexes": ["thing*"], "reranks": False, "answers": False}
    assert writer == {"write": True, "namespace": None, "indexes": None, "reranks": False, "answers": False}
    assert not serving(Settings(read_only=True)).get("/v1/access").json()["write"]


def test_a_server_without_reranker_says_so(serving):
    client = serving(Settings(method=None))
    for path, body in (("rerank", {"query": "a", "documents": ["b"]}), ("search", {"query": "a", "rerank": True})):
        assert error_of(client.post(f"/v1/{path}", json=body)) == (404, "this server was started without a reranker")


def test_an_unknown_method_is_refused_before_anything_is_served(whole):
    with pytest.raises(InputError, match="method"):
        create_app(whole, settings=Settings(method="magic"))
