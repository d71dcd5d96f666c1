"""Who may do what: every right of a key, tried both ways, and what a key of no right may learn."""

import json

import pytest

from tp_retrieval import InputError
from tp_retrieval.integrations.server import ApiKey, Settings, read_keys

ALL, READER, ONE, TENANT, TENANT_READER = "all-of-it", "a-reader", "for-notes", "for-alice", "alice-reads"
KEYS = [
    ALL,
    ApiKey(READER, write=False),
    ApiKey(ONE, indexes=("notes", "team-*")),
    ApiKey(TENANT, indexes=("notes",), namespace="alice"),
    ApiKey(TENANT_READER, write=False, indexes=("notes",), namespace="alice"),
]


@pytest.fixture(scope="module")
def server(whole, folder, tmp_path_factory):
    from fastapi.testclient import TestClient

    from tests.integrations.server.conftest import HOSTS
    from tp_retrieval.integrations.server import create_app

    settings = Settings(data=tmp_path_factory.mktemp("data"))
    app = create_app(whole, {"things": folder}, settings=settings, api_keys=KEYS, allowed_hosts=HOSTS)
    with TestClient(app) as client:
        for name in ("notes", "team-red"):
            assert ask(client, ALL, "POST", "/v1/indexes", json={"name": name, "recipe": "mean"}) == 201
        for name, namespace in (("notes", ""), ("notes", "alice"), ("notes", "bob"), ("team-red", "")):
            body = {"documents": [{"text": f"apples of {namespace or 'all'}", "id": "d"}], "namespace": namespace}
            assert ask(client, ALL, "POST", f"/v1/indexes/{name}/documents", json=body) == 200
        yield client


def send(client, key, method, path, **given):
    return client.request(method, path, headers={"authorization": f"Bearer {key}"}, **given)


def ask(client, key, method, path, **given):
    return send(client, key, method, path, **given).status_code


def document(name="x", namespace=""):
    return {"json": {"documents": [{"text": "new", "id": name}], "namespace": namespace}}


SEARCH = {"json": {"query": "apples", "index": "notes", "mode": "lexical"}}
ROWS = [  # method, path, what is sent, and the status for each key
    ("GET", "/v1/models", {}, (200, 200, 200, 200, 200)),
    ("GET", "/v1/access", {}, (200, 200, 200, 200, 200)),
    ("POST", "/v1/embeddings", {"json": {"input": "a"}}, (200, 200, 200, 200, 200)),
    ("POST", "/v1/search", SEARCH, (200, 200, 200, 200, 200)),
    ("POST", "/v1/search", {"json": {"query": "a", "index": "things"}}, (200, 200, 404, 404, 404)),
    ("POST", "/v1/search", {"json": {"query": "a", "index": "team-red"}}, (200, 200, 200, 404, 404)),
    ("POST", "/v1/search", {"json": {"query": "a", "index": "notes", "namespace": "alice"}}, (200,) * 5),
    ("POST", "/v1/search", {"json": {"query": "a", "index": "notes", "namespace": "bob"}}, (200, 200, 200, 403, 403)),
    ("POST", "/v1/answers", {"json": {"query": "a", "index": "notes", "namespace": "bob"}}, (200, 200, 200, 403, 403)),
    ("GET", "/v1/indexes/notes", {}, (200, 200, 200, 200, 200)),
    ("GET", "/v1/indexes/things", {}, (200, 200, 404, 404, 404)),
    ("GET", "/v1/indexes/notes/documents", {}, (200, 200, 200, 200, 200)),
    ("GET", "/v1/indexes/notes/documents", {"params": {"namespace": "bob"}}, (200, 200, 200, 403, 403)),
    ("POST", "/v1/indexes/notes/documents", document(), (200, 403, 200, 200, 403)),
    ("POST", "/v1/indexes/notes/documents", document(namespace="bob"), (200, 403, 200, 403, 403)),
    ("POST", "/v1/indexes/things/documents", document(), (200, 403, 404, 404, 403)),
    ("POST", "/v1/indexes/notes/files", {"files": [("files", ("f.txt", b"words"))]}, (200, 403, 200, 200, 403)),
    ("DELETE", "/v1/indexes/notes/documents", {"params": {"ids": ["x"]}}, (200, 403, 200, 200, 403)),
    ("DELETE", "/v1/indexes/notes/documents", {"params": {"ids": ["x"], "namespace": "bob"}}, (200, 403, 200, 403, 403)),
    ("DELETE", "/v1/indexes/things/documents", {"params": {"ids": ["x"]}}, (200, 403, 404, 404, 403)),
    ("POST", "/v1/indexes", {"json": {"name": "notes"}}, (409, 403, 409, 403, 403)),
    ("POST", "/v1/indexes", {"json": {"name": "secret-1", "kind": "nonsense"}}, (400, 403, 403, 403, 403)),
    ("DELETE", "/v1/indexes/things", {}, (403, 403, 403, 403, 403)),
]


@pytest.mark.parametrize(("method", "path", "given", "statuses"), ROWS, ids=range(len(ROWS)))
def test_who_may_do_what(server, method, path, given, statuses):
    keys = (ALL, READER, ONE, TENANT, TENANT_READER)
    assert {key: ask(server, key, method, path, **given) for key in keys} == dict(zip(keys, statuses, strict=True))
    for wrong in ("", "another-key", ALL[:-1], ALL + "x"):
        assert ask(server, wrong, method, path, **given) == 401


def test_a_tenants_key_is_of_its_namespace_wherever_none_is_named(server):
    found = send(server, TENANT, "POST", "/v1/search", **SEARCH).json()["hits"]
    assert {hit["text"] for hit in found} == {"apples of alice"}
    read = send(server, TENANT, "GET", "/v1/indexes/notes/documents", params={"ids": ["d"]}).json()["documents"]
    assert [one["text"] for one in read] == ["apples of alice"]
    send(server, TENANT, "POST", "/v1/indexes/notes/documents", json={"documents": [{"text": "mine", "id": "mine"}]})
    assert send(server, ALL, "GET", "/v1/indexes/notes/documents", params={"ids": ["mine"]}).json()["documents"] == []
    assert send(server, TENANT, "DELETE", "/v1/indexes/notes/documents", params={"ids": ["mine"]}).json() == {"removed": 1}


def test_a_key_learns_nothing_of_what_it_does_not_see(server):
    listed = send(server, TENANT, "GET", "/v1/indexes").json()["data"]
    assert [one["name"] for one in listed] == ["notes"]
    assert listed[0]["namespaces"].keys() == {"alice"}
    described = send(server, TENANT, "GET", "/v1/indexes/notes").json()
    assert "metadata_keys" not in described
    message = send(server, TENANT, "GET", "/v1/indexes/team-red").json()["error"]["message"]
    assert message == "index: 'team-red' is not served here; there are notes"
    assert (
        message.replace("team-red", "nowhere")
        == (send(server, TENANT, "GET", "/v1/indexes/nowhere").json()["error"]["message"])
    )
    assert server.get("/health").json()["indexes"] == []


def test_a_job_is_seen_by_the_key_that_began_it(server):
    body = {"documents": [{"text": "a"}]}
    send(server, ALL, "POST", "/v1/indexes/notes/documents", json=body, params={"wait": False})
    headers = {"authorization": f"Bearer {ALL}", "idempotency-key": "my-job"}
    assert server.post("/v1/indexes/notes/documents", json=body, headers=headers).status_code == 200
    assert ask(server, ALL, "GET", "/v1/jobs/my-job") == 200
    assert ask(server, ONE, "GET", "/v1/jobs/my-job") == 404


def test_a_read_only_server_changes_nothing_for_anybody(serving, tmp_path):
    client = serving(Settings(data=tmp_path, read_only=True))
    message = client.post("/v1/indexes", json={"name": "x"}).json()["error"]["message"]
    assert message == "this server is read-only"
    assert client.post("/v1/indexes/things/documents", **document()).status_code == 403
    assert client.delete("/v1/indexes/things/documents", params={"all": True}).status_code == 403
    assert client.post("/v1/search", json={"query": "a"}).status_code == 200
    keyed = serving(Settings(read_only=True), api_keys=["the-key!"])
    assert ask(keyed, "the-key!", "POST", "/v1/indexes/things/documents", **document()) == 403


def test_pages_of_a_named_site_may_use_the_server_and_no_others(serving):
    client = serving(cors_origins=["https://app.example"])
    ours, others = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    assert client.post("/v1/search", json={"query": "a"}, headers=ours).headers["access-control-allow-origin"] == (
        "https://app.example"
    )
    assert client.post("/v1/search", json={"query": "a"}, headers=others).status_code == 403
    asked = ours | {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert client.options("/v1/search", headers=asked).status_code == 200
    asked["origin"] = "https://evil.example"
    assert "access-control-allow-origin" not in client.options("/v1/search", headers=asked).headers
    with pytest.raises(InputError, match=r"origin 'app\.example': give scheme and host"):
        serving(cors_origins=["app.example"])


def test_keys_are_read_from_a_file(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(
        json.dumps([{"key": "12345678"}, {"key": "abcdefgh", "write": True, "indexes": ["a"], "namespace": "n"}])
    )
    assert read_keys(file) == [ApiKey("12345678", write=False), ApiKey("abcdefgh", True, ("a",), "n")]
    for content, message in (
        ("{", "keys.json: the file: Invalid JSON"),
        ('[{"key": "short"}]', "keys.json: 0.key: String should have at least 8 characters"),
        ('[{"key": "12345678", "rights": 1}]', "keys.json: 0.rights: Extra inputs"),
        ('[{"key": "12345678"}, {"key": "12345678"}]', "a key stands there twice"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            read_keys(file)
    with pytest.raises(InputError, match="can't be read"):
        read_keys(tmp_path / "nowhere.json")


def test_a_request_is_logged_without_what_it_says(serving, caplog):
    client = serving(api_keys=["the-key!"])
    with caplog.at_level("INFO", "tp_retrieval.access"):
        ask(client, "the-key!", "POST", "/v1/search", json={"query": "a secret question"})
        ask(client, "the-key!", "GET", "/v1/indexes/a-secret-name")
    records = [json.loads(record.message) for record in caplog.records]
    assert [(r["method"], r["route"], r["status"]) for r in records] == [
        ("POST", "/v1/search", 200),
        ("GET", "/v1/indexes/{name}", 404),
    ]
    assert len(records[0]["key"]) == 8
    assert "secret" not in caplog.text
    assert "the-key" not in caplog.text
    page = client.get("/metrics").text
    assert 'tp_retrieval_requests_total{path="/v1/indexes/{name}",status="404"} 1.0' in page


def tool(client, key, method, **arguments):
    message = {"jsonrpc": "2.0", "id": 1, "method": f"tools/{method}", "params": arguments}
    headers = {"accept": "application/json", "mcp-protocol-version": "2025-06-18", "authorization": f"Bearer {key}"}
    answer = client.post("/mcp", json=message, headers=headers)
    return answer.json()["result"] if answer.status_code == 200 else answer.status_code


def test_agents_have_the_rights_of_their_keys(server, serving, tmp_path):
    def found(key, **more):
        arguments = {"query": "apples", "index": "notes", "mode": "lexical", **more}
        answer = tool(server, key, "call", name="search", arguments=arguments)
        return (
            answer["content"][0]["text"] if answer["isError"] else [h["text"] for h in answer["structuredContent"]["hits"]]
        )

    assert found(ALL, namespace="bob") == ["apples of bob"]
    assert found(TENANT) == ["apples of alice"]
    assert "namespace: 'bob' is not open here" in found(TENANT, namespace="bob")
    assert "index: 'things' is not here; there are notes" in found(TENANT, index="things")
    assert tool(server, "another-key", "list") == 401
    assert [one["name"] for one in tool(server, ALL, "list")["tools"]] == ["search", "get", "list"]
    writing = serving(Settings(data=tmp_path, mcp_write=True), api_keys=[ALL, ApiKey(READER, write=False)])
    assert [one["name"] for one in tool(writing, ALL, "list")["tools"]] == ["search", "get", "list", "add", "delete"]
    assert len(tool(writing, READER, "list")["tools"]) == 3
    added = {"index": "things", "documents": [{"text": "an agent's", "id": "agent"}], "namespace": "agents"}
    assert not tool(writing, ALL, "call", name="add", arguments=added)["isError"]
    read = send(writing, ALL, "GET", "/v1/indexes/things/documents", params={"namespace": "agents"}).json()
    assert [one["text"] for one in read["documents"]] == ["an agent's"]
    send(writing, ALL, "DELETE", "/v1/indexes/things/documents", params={"namespace": "agents", "all": True})
