"""A web page can neither read a local server nor ask it: hosts, origins, and no CORS."""

import ast
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tp_retrieval import InputError
from tp_retrieval.integrations.server import Settings, create_app
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.hosts import Hosts

ROOT = Path(__file__).parents[4]
PATHS = ("/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/indexes", "/search.js")


def refusal(hosts, *headers, server=("127.0.0.1", 8000)):
    """Return the status with which headers are refused, or 200."""
    scope = {"server": server, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    try:
        hosts.check(scope)
    except RequestError as error:
        return error.status
    return 200


@pytest.fixture
def local(whole):
    """A server without keys, as a page of a name that resolves to this machine would ask it."""
    app = create_app(whole, settings=Settings(method=None))
    with TestClient(app, base_url="http://localhost:8000") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_a_host_that_is_not_this_machines_gets_nothing(local, path):
    assert local.get(path).status_code == 200
    response = local.get(path, headers={"host": "evil.example:8000"})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert "'evil.example'" in message
    assert "--allowed-host evil.example" in message


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_site_gets_nothing(local, path):
    response = local.get(path, headers={"origin": "http://evil.example"})
    assert response.status_code == 403
    assert "http://evil.example" in response.json()["error"]["message"]
    assert local.get(path, headers={"origin": "http://localhost:8000"}).status_code == 200


def test_a_page_of_another_site_cannot_have_anything_computed(local):
    body = {"input": "a text"}
    for origin in ("http://evil.example", "null", "http://localhost:3000", "https://localhost"):
        assert local.post("/v1/embeddings", json=body, headers={"origin": origin}).status_code == 403, origin
    assert "tp_retrieval_step_items_sum 0.0" in local.get("/metrics").text
    assert local.post("/v1/embeddings", json=body, headers={"origin": "http://localhost:8000"}).status_code == 200


def test_no_answer_has_a_cors_header(local):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin in ("http://evil.example", "http://localhost:8000"):
        for method, path in (("OPTIONS", "/v1/search"), ("GET", "/v1/indexes"), ("GET", "/"), ("POST", "/v1/search")):
            headers = local.request(method, path, headers={"origin": origin, **asked}).headers
            assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("localhost.evil.example", 400),
        ("evil.example:127.0.0.1", 400),
        ("localhost:80@evil.example", 400),
        ("localhost/evil", 400),
        ("127.0.0.1.nip.io", 400),
        ("[::1]evil", 400),
        ("::1", 400),
        ("localhost:", 400),
        ("", 400),
    ],
)
def test_the_names_of_this_machine(host, status):
    assert refusal(Hosts(), ("host", host)) == status


def test_every_host_header_must_be_allowed():
    assert refusal(Hosts(), ("host", "localhost"), ("host", "evil.example")) == 400
    assert refusal(Hosts()) == 200  # no browser leaves it out
    assert refusal(Hosts(), ("origin", "http://localhost")) == 403


def test_further_hosts_are_answered_when_they_are_given():
    hosts = Hosts(["Search.Example", "fe80::1"])
    assert [refusal(hosts, ("host", name)) for name in ("search.example", "search.example:80", "[fe80::1]:8000")] == [
        200
    ] * 3
    assert [refusal(hosts, ("host", name)) for name in ("localhost", "a.search.example")] == [200, 400]
    assert refusal(Hosts(["*"]), ("host", "any.example")) == 200
    assert refusal(Hosts(["*"]), ("host", "any.example"), ("origin", "http://other.example")) == 403


def test_with_keys_any_host_is_answered_unless_some_are_given():
    assert refusal(Hosts(keyed=True), ("host", "any.example"), ("origin", "http://other.example")) == 200
    assert refusal(Hosts(["search.example"], keyed=True), ("host", "any.example")) == 400
    assert refusal(Hosts(["search.example"], keyed=True), ("host", "search.example")) == 200


def test_at_a_socket_in_the_file_system_any_host_is_answered_but_no_other_page():
    file = ("/run/retrieval", None)
    assert refusal(Hosts(), ("host", "any.example"), server=file) == 200
    assert refusal(Hosts(), ("host", "any.example"), ("origin", "https://any.example"), server=file) == 200
    assert refusal(Hosts(), ("host", "any.example"), ("origin", "https://other.example"), server=file) == 403


def test_a_default_port_may_be_written_or_left_out():
    hosts = Hosts(["search.example"])
    assert refusal(hosts, ("host", "search.example:443"), ("origin", "https://search.example")) == 200
    assert refusal(hosts, ("host", "search.example"), ("origin", "http://search.example:80")) == 200
    assert refusal(hosts, ("host", "search.example"), ("origin", "http://search.example:443")) == 403


@pytest.mark.parametrize("name", ["http://search.example", "search.example:80", "a/b", "", "a b"])
def test_an_allowed_host_that_is_none_is_refused_before_anything_is_served(whole, name):
    with pytest.raises(InputError, match="give a name alone"):
        create_app(whole, allowed_hosts=[name])


def test_an_app_under_a_path_of_another_keeps_its_open_paths_and_its_keys(whole):
    app = create_app(whole, settings=Settings(method=None), api_keys=["key"])
    outer = FastAPI()
    outer.mount("/model", app)
    client = TestClient(outer)
    asked = {
        path: client.get(path).status_code for path in ("/model/health", "/model/v1/models", "/health", "/modelhealth")
    }
    assert asked == {"/model/health": 200, "/model/v1/models": 401, "/health": 404, "/modelhealth": 404}
    with TestClient(app):
        pass  # which ends its threads


def test_nothing_private_of_another_package_is_imported():
    for path in [*(ROOT / "integrations").rglob("*.py"), *(ROOT / "tp_retrieval").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.module.startswith(("tp_retrieval", "__future__")):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("_")], f"{path}: {node.module}"
