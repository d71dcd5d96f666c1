"""`Client` and `AsyncClient` against the index behind the server, through a socket and without one."""

import asyncio
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import date
from inspect import signature

import httpx
import numpy as np
import pytest

from tests.integrations.server.conftest import HOSTS, TEXTS
from tp_retrieval import (
    Answerer,
    AsyncClient,
    Client,
    Document,
    Index,
    IndexExistsError,
    IndexNotFoundError,
    InputError,
    OptionalDependencyError,
    Reranker,
    ServerError,
)
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.server import ApiKey, Settings, create_app

SERVE = """
import sys
from pathlib import Path
from tests import tiny
from tp_retrieval import Embedder
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.server import ApiKey, Settings, create_app, listen
model, index, address, data = sys.argv[1:]
embedder = Embedder.from_pretrained(model, recipe=tiny.RECIPE, dtype="float32", device="cpu", whole=True)
app = create_app(embedder, {"things": Path(index)}, settings=Settings(data=Path(data)), api_keys=["the-key!"])
listen(app, address, started=lambda name: print(name, flush=True))
"""


@pytest.fixture(scope="module")
def address(tiny_folder, folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("client")
    with ExitStack() as running:
        command = [sys.executable, "-c", SERVE, tiny_folder("llama"), folder, f"unix:{place}/socket", place / "data"]
        process = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        running.callback(process.send_signal, signal.SIGKILL)
        assert process.stdout.readline() == f"unix:{place}/socket\n"
        yield f"unix:{place}/socket"


@pytest.fixture
def client(address, request):
    name = request.node.name.translate({ord(c): "-" for c in "[]_/"})[:60].rstrip("-")
    with Client(address, name, api_key="the-key!") as client:
        client.create_index(name, recipe="mean")
        yield client


DOCUMENTS = [
    Document("red apples and pears", {"n": 1, "when": date(2024, 5, 1)}, "apples"),
    Document("a river of stones", {"n": 2, "tags": ["a", "b"]}, "river"),
    Document("the cat sleeps", {}, "cat"),
]


def test_an_index_behind_a_server_is_used_as_one_here(client):
    assert client.add(DOCUMENTS) == ["apples", "river", "cat"]
    assert client.get() == DOCUMENTS
    assert client.get(["cat", "nowhere", "apples"]) == [DOCUMENTS[2], DOCUMENTS[0]]
    assert client.get(where={"when": {"$gte": date(2024, 1, 1)}}) == DOCUMENTS[:1]
    assert client.get(limit=1, offset=1) == DOCUMENTS[1:2]
    (best, *others) = client.search("apples", 3, mode="lexical")
    assert (best.document, best.rank, others) == (DOCUMENTS[0], 1, [])
    assert best.parts.keys() == {"lexical"}
    assert 0 < best.relevance < 1
    both = client.search(["cat", "river"], 1, mode="lexical", where={"n": 2})
    assert [[hit.document.id for hit in hits] for hits in both] == [[], ["river"]]
    assert client.search("apples", ids=["river"], mode="lexical") == []
    assert client.delete(["cat"]) == 1
    assert client.delete(where={"n": {"$lt": 2}}) == 1
    assert client.clear() == 1
    assert client.get() == []


def test_hits_are_those_of_the_index(address, folder, whole):
    with Client(address, "things", api_key="the-key!") as client, Index.open(folder, whole) as index:
        for options in (
            {},
            {"mode": "dense"},
            {"fusion": "reciprocal-rank", "candidates": 5},
            {"mmr": 0.5},
            {"rerank": True},
        ):
            found = client.search("Which whale sings?", 4, **options)
            if "rerank" not in options:
                want = index.search("Which whale sings?", 4, **options)
                assert [hit.document for hit in found] == [hit.document for hit in want]
                assert np.allclose([hit.score for hit in found], [hit.score for hit in want], atol=1e-4)
                assert np.allclose([hit.relevance for hit in found], [hit.relevance for hit in want], atol=1e-4)
            assert len(found) == 4
        assert client.info()["documents"] == 12
        assert client.namespaces() == {"": 12}
        assert client.access() == {"write": True, "indexes": None, "namespace": None, "reranks": True, "answers": True}


def test_many_documents_are_sent_in_parts_and_again_after_an_error(client, monkeypatch):
    texts = [f"text {i}" for i in range(600)]
    sent = []
    original = type(client)._send

    def breaking(self, call):
        sent.append(call)
        if len(sent) == 3:
            raise ServerError("broken", None)
        return original(self, call)

    monkeypatch.setattr(Client, "_send", breaking)
    with pytest.raises(ServerError, match="broken"):
        client.add(texts, idempotency_key="mine")
    assert len(client.get()) == 512
    ids = client.add(texts, idempotency_key="mine")
    assert len(ids) == len({*ids}) == 600
    assert [document.text for document in client.get()] == texts
    assert client.add([]) == []


def test_many_ids_go_in_several_addresses(client):
    ids = [f"a long id / {i} with é and # in it" for i in range(1_200)]
    client.add([Document(f"text {i}", {}, id_) for i, id_ in enumerate(ids)])
    assert [document.id for document in client.get(ids[::-1])] == ids[::-1]
    assert [document.id for document in client.get(ids, limit=3, offset=1_100)] == ids[1_100:1_103]
    assert client.delete(ids[:1_100]) == 1_100
    assert client.get([]) == []
    assert client.delete([]) == 0


def test_namespaces_are_the_clients_or_the_calls(client):
    client.add(DOCUMENTS[:1])
    client.add(["theirs"], namespace="t")
    assert client.namespaces() == {"": 1, "t": 1}
    assert [d.text for d in client.get(namespace="t")] == ["theirs"]
    assert [h.document.text for h in client.search("theirs", mode="lexical", namespace="t")] == ["theirs"]
    assert client.search("theirs", mode="lexical") == []
    assert client.clear(namespace="t") == 1


def test_files_are_sent_by_path_or_by_name(client, tmp_path):
    (tmp_path / "a.md").write_text("# Title\n\nApples are red.\n\nPears are green.")
    (tmp_path / "b.pdf").write_bytes(b"none")
    report = client.add_files([tmp_path / "a.md", tmp_path / "b.pdf"])
    assert (report.added, [path for path, _ in report.skipped]) == (1, ["b.pdf"])
    assert client.add_files({"docs/c.txt": b"The sea."}).added == 1
    assert {document.metadata["path"] for document in client.get()} == {"a.md", "docs/c.txt"}
    (hit,) = client.search("apples", mode="lexical", expand=1)
    assert "Apples are red." in hit.passage
    with pytest.raises(InputError, match=r"files: .* can't be read"):
        client.add_files([tmp_path / "nowhere"])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.md").write_text("x")
    with pytest.raises(InputError, match="files: two have the same name"):
        client.add_files([tmp_path / "a.md", tmp_path / "d" / "a.md"])


def test_the_model_embeds_reranks_and_answers(address, folder, whole):
    with Client(address, "things", api_key="the-key!") as client:
        assert np.allclose(client.embed_queries(TEXTS[:3]), whole.normalize(whole.embed_queries(TEXTS[:3])), atol=1e-5)
        assert np.allclose(client.embed_documents(TEXTS), whole.normalize(whole.embed_documents(TEXTS)), atol=1e-5)
        assert client.embed_queries([]).shape[0] == 0
        ranked = client.rerank("Which whale sings?", TEXTS[:3], 2)
        want = Reranker(whole).order("Which whale sings?", TEXTS[:3], top_n=2)
        assert [place for place, _ in ranked] == [place for place, _ in want]
        assert np.allclose([score for _, score in ranked], [score for _, score in want], atol=1e-4)
        options = {"max_tokens": 8, "mode": "lexical"}
        answer = client.answer("Which whale sings?", 2, **options)
        with Index.open(folder, whole) as index:
            hits = index.search("Which whale sings?", 2, mode="lexical")
        want = Answerer(whole).answer("Which whale sings?", hits, WritingOptions(max_tokens=8))
        assert (answer.question, answer.text, answer.refused) == (want.question, want.text, want.refused)
        assert [hit.document for hit in answer.hits] == [hit.document for hit in want.hits]
        assert [text for text, _ in answer.sentences] == [sentence.text for sentence in want.sentences]
        assert "".join(client.stream_answer("Which whale sings?", 2, **options)).strip() == want.text.strip()


def test_what_the_server_refuses_is_one_of_our_errors(address, client):
    with pytest.raises(InputError, match="unknown operator"):
        client.search("a", where={"n": {"$no": 1}})
    with pytest.raises(IndexExistsError, match="there is an index or a folder 'things' already"):
        client.create_index("things")
    with Client(address, "nowhere", api_key="the-key!") as other:
        with pytest.raises(IndexNotFoundError, match="index: 'nowhere' is not served here"):
            other.get()
        with pytest.raises(ServerError) as refused:
            other.remove_index("things")
        assert refused.value.status == 403
    with Client(address, "things", api_key="wrong") as stranger:
        with pytest.raises(ServerError, match="Authorization: Bearer KEY") as refused:
            stranger.get()
        assert refused.value.status == 401
        with pytest.raises(ServerError):
            list(stranger.stream_answer("a"))

    def unreachable(request):
        raise httpx.ConnectError("no route")

    lost = Client("http://nowhere", "x", transport=httpx.MockTransport(unreachable))
    with lost, pytest.raises(ServerError, match="GET /v1/indexes: no route") as refused:
        lost.indexes()
    assert refused.value.status is None
    with Client(address, api_key="the-key!") as unbound:
        assert unbound.indexes()["things"] == 12
        with pytest.raises(InputError, match="index: this needs one"):
            unbound.get()
        with pytest.raises(InputError, match="give ids or where"):
            client.delete()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.add("text"), "documents: expected a list"),
        (lambda c: c.add([Document("a", {"n": float("nan")})]), "JSON can't hold it"),
        (lambda c: c.add(["a", "\ud800"]), r"documents\[1\].text: character 0 is the lone surrogate"),
        (lambda c: c.add([Document("a", {}, "x"), Document("b", {}, "x")]), "is documents"),
        (lambda c: c.delete("d1"), "ids: expected a list"),
        (lambda c: c.get("d1"), "ids: expected a list"),
        (lambda c: c.get(limit=-1), "limit: -1 must be"),
        (lambda c: c.get(["a"], offset=-1), "offset: -1 must be"),
        (lambda c: c.embed_queries("abc"), "texts: expected a list"),
        (lambda c: c.rerank("q", "abc"), "texts: expected a list"),
        (lambda c: c.search("a", foo=1), "foo: unknown option"),
        (lambda c: c.search(7), "query: expected a list"),
    ],
)
def test_what_an_index_would_refuse_is_not_sent(call, message):
    def never(request):
        raise AssertionError(request)

    with Client("http://nowhere", "x", transport=httpx.MockTransport(never)) as client:
        with pytest.raises(InputError, match=message):
            call(client)
        with pytest.raises(InputError, match="JSON can't hold what is sent"):
            client.search("a", min_score=float("nan"))


def test_an_answer_of_another_server_is_an_error():
    for response in (
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={}),
        httpx.Response(307, headers={"location": "/elsewhere"}),
    ):
        with Client("http://nowhere", "x", transport=httpx.MockTransport(lambda _, r=response: r)) as client:
            with pytest.raises(ServerError):
                client.search("a")
            with pytest.raises(ServerError):
                list(client.stream_answer("a"))
    half = httpx.Response(200, text='event: text\ndata: {"text": "half"}\n\n')
    broken = Client("http://nowhere", "x", transport=httpx.MockTransport(lambda _: half))
    with broken as client, pytest.raises(ServerError, match="the answer broke off"):
        list(client.stream_answer("a"))


def test_an_index_is_removed(client):
    (name,) = [name for name in client.indexes() if name.startswith("test-an-index-is-removed")]
    client.remove_index(name)
    assert name not in client.indexes()


def test_the_asynchronous_client_does_the_same_without_waiting(whole, folder, tmp_path):
    app = create_app(
        whole,
        {"things": folder},
        settings=Settings(data=tmp_path / "d"),
        api_keys=[ApiKey("the-key!")],
        allowed_hosts=HOSTS,
    )

    async def use():
        transport = httpx.ASGITransport(app)
        async with AsyncClient("http://testserver", "notes", api_key="the-key!", transport=transport) as client:
            await client.create_index("notes", recipe="mean")
            assert await client.add(DOCUMENTS) == ["apples", "river", "cat"]
            assert await client.get(where={"n": 1}) == DOCUMENTS[:1]
            assert await client.namespaces() == {"": 3}
            (best,) = await client.search("apples", mode="lexical")
            assert best.document == DOCUMENTS[0]
            assert [len(hits) for hits in await client.search(["cat", "river"], 1, mode="lexical")] == [1, 1]
            assert (await client.add_files({"a.txt": b"The sea."})).added == 1
            assert (await client.embed_documents(TEXTS[:2])).shape == (2, whole.dimension)
            assert (await client.embed_queries(TEXTS[:1])).shape == (1, whole.dimension)
            assert len(await client.rerank("a", TEXTS[:3])) == 3
            answer = await client.answer("Which cat sleeps?", 2, max_tokens=4, mode="lexical")
            pieces = [piece async for piece in client.stream_answer("Which cat sleeps?", 2, max_tokens=4, mode="lexical")]
            assert "".join(pieces).strip() == answer.text.strip()
            assert await client.delete(["cat"]) == 1
            assert await client.clear() == 3
            assert await client.indexes() == {"things": 12, "notes": 0}
            assert (await client.access())["write"]
            await client.remove_index("notes")
            with pytest.raises(IndexNotFoundError):
                await client.info()

    asyncio.run(use())
    app.state.service.close()


def test_both_clients_have_the_same_methods_and_those_of_an_index_its_arguments():
    public = [name for name in vars(Client) if not name.startswith("_")]
    assert public == [name for name in vars(AsyncClient) if not name.startswith("_")]
    for name in public:
        assert signature(getattr(Client, name)).parameters.keys() == signature(getattr(AsyncClient, name)).parameters.keys()
    for name in ("get", "delete", "clear", "namespaces"):
        assert signature(getattr(Client, name)).parameters.keys() == signature(getattr(Index, name)).parameters.keys()
    known = signature(Index.search).parameters.keys()
    from tp_retrieval.client.calls import SearchOptions

    assert SearchOptions.__annotations__.keys() == known - {"self", "query", "k"}


def test_the_client_needs_neither_torch_nor_faiss():
    code = "import sys, tp_retrieval; tp_retrieval.Client; print({'torch', 'faiss', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "tp_retrieval.client.client", raising=False)
    with pytest.raises(OptionalDependencyError, match=r"pip install 'tp-retrieval\[client\]'"):
        _ = __import__("tp_retrieval.client.client")
