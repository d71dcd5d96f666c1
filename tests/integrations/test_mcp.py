"""The MCP server through the official client: in one process for breadth, and as the command that clients start."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import jsonschema
import pytest
from fastapi.testclient import TestClient
from mcp import Client, ClientSession, MCPError, StdioServerParameters, stdio_client

from tests import tiny
from tests.toy import ToyEmbedder
from tp_retrieval import Document, Embedder, Index, OptionalDependencyError, index_files
from tp_retrieval.integrations.mcp import Access, create_mcp

ODD_IDS = ["docs/a b.md#3", "é/ü#?x=1&y%20z", "東京", "a/../b", "{id}", "tp-retrieval://faq/x", "100%", "-", "a\nb"]
DOCUMENTS = [
    Document("Whales breathe air and sing.", {"kind": "animal", "year": 2020}, "whale"),
    Document("Larks sing at dawn.", {"kind": "animal", "year": 1990, "size": {"grams": 40}}, "lark"),
    Document("Granite is a hard rock.", {"kind": "stone", "when": date(2024, 5, 1)}, "granite"),
    *(Document(f"An odd number, {i}.", {"odd": True}, id_) for i, id_ in enumerate(ODD_IDS)),
]


@pytest.fixture
def index(tmp_path, toy):
    with Index.create(tmp_path / "faq", toy) as index:
        index.add(DOCUMENTS)
        index.add([Document("Whales of ours sing.", {"secret": 1}, "whale")], namespace="ours")
        yield index


@asynccontextmanager
async def connected(access, mode="legacy"):
    async with Client(create_mcp(access), mode=mode) as client:
        yield client


async def call(client, name, **arguments):
    """Return what a tool answers: its structured content and its text."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content, result.content[0].text


async def mistake(client, name, **arguments):
    result = await client.call_tool(name, arguments)
    assert result.is_error
    assert "\n" not in result.content[0].text
    return result.content[0].text


def as_hits(hits):
    return [(hit.rank, hit.document.id, hit.score, hit.relevance, dict(hit.parts), hit.passage) for hit in hits]


def read_hits(answer):
    return [tuple(hit[name] for name in ("rank", "id", "score", "relevance", "parts", "text")) for hit in answer["hits"]]


@pytest.mark.parametrize("protocol", ["legacy", "auto"])
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_search_gives_what_the_index_gives(index, mode, protocol):
    where = {"$or": [{"year": {"$gte": 1900}}, {"kind": "stone"}]}
    async with connected(Access({"faq": index}), protocol) as client:
        answer, text = await call(client, "search", query="singing whales sing", mode=mode, k=2, where=where)
        everything, _ = await call(client, "search", query="sing", index="faq", mode=mode)
    assert read_hits(answer) == as_hits(index.search("singing whales sing", 2, mode=mode, where=where))
    assert read_hits(everything) == as_hits(index.search("sing", 5, mode=mode))
    assert (answer["index"], answer["mode"], answer["note"]) == ("faq", mode, None)
    assert answer["hits"][0]["metadata"] == {"kind": "animal", "year": 2020}
    for hit in answer["hits"]:
        assert f'[{hit["rank"]}] id: "{hit["id"]}", score {hit["score"]:.3g}' in text
        assert hit["text"] in text


async def test_hits_that_are_hardly_relevant_are_left_out(index):
    least = index.search("whales sing", 2)[1].relevance
    async with connected(Access({"faq": index})) as client:
        answer, text = await call(client, "search", query="whales sing", min_relevance=least + 1e-6)
    assert read_hits(answer) == as_hits(index.search("whales sing", 1))
    assert f"relevance {answer['hits'][0]['relevance']:.2f}" in text


async def test_a_client_that_sends_objects_as_json_in_strings_is_understood(index):
    async with connected(Access({"faq": index})) as client:
        answer, _ = await call(client, "search", query="sing", where='{"year": {"$lt": 2000}}', k="3")
        documents, _ = await call(client, "get", ids='["lark"]')
    assert [hit["id"] for hit in answer["hits"]] == ["lark"]
    assert [document["id"] for document in documents["documents"]] == ["lark"]


async def test_dates_are_read_as_filters_take_them(index):
    async with connected(Access({"faq": index})) as client:
        answer, _ = await call(client, "get", ids=["granite"])
        stored = answer["documents"][0]["metadata"]["when"]
        found, _ = await call(client, "list", index="faq", where={"when": stored})
    assert stored == {"$date": "2024-05-01"}
    assert [document["id"] for document in found["documents"]] == ["granite"]


async def test_get_gives_whole_documents_in_the_order_asked_for(index):
    async with connected(Access({"faq": index})) as client:
        answer, text = await call(client, "get", ids=["granite", "none", "whale"])
    assert [document["text"] for document in answer["documents"]] == [
        "Granite is a hard rock.",
        "Whales breathe air and sing.",
    ]
    assert answer["missing"] == ["none"]
    assert text.endswith('No document has the id "none".')


async def test_a_long_text_is_read_in_parts(index):
    long = "".join(chr(0x4E00 + i % 20_000) for i in range(90_000))
    index.add([Document(long, {}, "long"), Document("short", {}, "short")])
    async with connected(Access({"faq": index})) as client:
        parts, begin = [], 0
        while True:
            answer, text = await call(client, "get", ids=["long"], begin=begin)
            parts.append(answer["documents"][0]["text"])
            begin += len(parts[-1])
            if not answer["documents"][0]["cut"]:
                break
            assert f"begin={begin}" in text
        both, _ = await call(client, "get", ids=["long", "short"])
    assert "".join(parts) == long
    assert len(parts) == 3
    assert [(len(document["text"]), document["cut"]) for document in both["documents"]] == [(40_000, True), (0, True)]


async def test_the_texts_of_hits_are_cut_so_that_an_answer_is_never_long(index):
    index.add([Document(f"long {i} " + "word " * 5000, {}, f"long{i}") for i in range(60)])
    async with connected(Access({"faq": index})) as client:
        few, _ = await call(client, "search", query="long word", mode="lexical", k=2)
        many, text = await call(client, "search", query="long word", mode="lexical", k=50)
    assert [(len(hit["text"]), hit["cut"]) for hit in few["hits"]] == [(8000, True)] * 2
    assert [(len(hit["text"]), hit["cut"]) for hit in many["hits"]] == [(800, True)] * 50
    assert "`get` with their ids gives the whole" in text


async def test_list_names_indexes_and_what_filters_can_use(index, tmp_path):
    with Index.create(tmp_path / "other", ToyEmbedder("other")) as other:
        async with connected(Access({"faq": index, "other": other})) as client:
            answer, text = await call(client, "list")
            resource = await client.read_resource("tp-retrieval://indexes")
            listed = (await client.list_resources()).resources
            missing = await mistake(client, "search", query="sing")
    keys = ["kind", "odd", "secret", "size", "size.grams", "when", "year"]
    counts = {"": len(DOCUMENTS), "ours": 1}
    faq = {"name": "faq", "documents": len(DOCUMENTS) + 1, "namespaces": counts, "metadata_keys": keys, "root": None}
    assert answer["indexes"] == [
        faq,
        {"name": "other", "documents": 0, "namespaces": {}, "metadata_keys": [], "root": None},
    ]
    assert f"metadata keys: {', '.join(keys)}" in text
    assert json.loads(resource.contents[0].text) == answer["indexes"]
    assert [item.uri for item in listed] == ["tp-retrieval://indexes"]
    assert missing == "index: name one of faq, other"


async def test_list_pages_through_documents(index):
    async with connected(Access({"faq": index})) as client:
        first, text = await call(client, "list", index="faq", limit=5)
        rest, _ = await call(client, "list", index="faq", limit=100, offset=5)
        animals, _ = await call(client, "list", index="faq", where={"kind": "animal"})
    ids = [document["id"] for document in first["documents"] + rest["documents"]]
    assert ids == [document.id for document in DOCUMENTS]
    assert (first["more"], rest["more"]) == (True, False)
    assert text.endswith("More follow; a greater offset gives them.")
    assert [document["id"] for document in animals["documents"]] == ["whale", "lark"]


async def test_hits_of_files_have_a_place_what_stands_around_them_and_one_a_file(tmp_path, toy):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "guide.md").write_text("# Guide\n\nWelcome.\n\n## Install\n\nRun the installer.\n\n## Remove\n\nDelete it.\n")
    (folder / "more.md").write_text("# More\n\nThe installer again.\n")
    with Index.create(tmp_path / "files", toy) as index:
        index_files(index, [folder])
        want = index.search("installer", 5, mode="lexical", expand=1)
        async with connected(Access({"files": index}, local=True)) as client:
            answer, text = await call(client, "search", query="installer", mode="lexical", expand=1)
            section, _ = await call(client, "search", query="installer", mode="lexical", expand="section")
            grouped, _ = await call(client, "search", query="guide installer delete", mode="lexical", group_by="path")
            listed, _ = await call(client, "list")
        async with connected(Access({"files": index})) as client:
            remote, _ = await call(client, "list")
    assert read_hits(answer) == as_hits(want)
    assert "guide.md:5 › Guide › Install" in [hit["place"] for hit in answer["hits"]]
    assert "place: guide.md:5 › Guide › Install\n" in text
    assert "Delete it." in next(hit["text"] for hit in answer["hits"] if "guide.md" in hit["place"])
    assert "Delete it." not in next(hit["text"] for hit in section["hits"] if "guide.md" in hit["place"])
    assert sorted(hit["metadata"]["path"] for hit in grouped["hits"]) == ["guide.md", "more.md"]
    assert listed["indexes"][0]["root"] == str(folder)
    assert remote["indexes"][0]["root"] is None


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("search", {"query": "x", "mode": "magic"}, "mode: input should be 'hybrid', 'dense' or 'lexical', got 'magic'"),
        ("search", {"query": "x", "k": 51}, "k: input should be less than or equal to 50, got 51"),
        ("search", {"query": "x", "k": 0}, "k: input should be greater than or equal to 1, got 0"),
        ("search", {}, "query: field required"),
        ("search", {"query": "x", "filter": {}}, "filter: there is no such argument"),
        ("search", {"query": "x", "index": "none"}, "index: 'none' is not here; there are faq"),
        ("search", {"query": "x", "where": {"year": {"$foo": 1}}}, "where.year.$foo: unknown operator; there are $eq"),
        ("search", {"query": "x", "where": "[1]"}, "where: input should be a valid dictionary, got [1]"),
        ("search", {"query": "x", "where": "{"}, "where: input should be a valid dictionary, got '{'"),
        ("search", {"query": "x", "group_by": "path", "expand": "much"}, "expand"),
        ("get", {"ids": []}, "ids: list should have at least 1 item"),
        ("list", {"index": "none"}, "index: 'none' is not here"),
    ],
)
async def test_a_mistake_is_an_answer_of_one_line(index, name, arguments, message):
    async with connected(Access({"faq": index})) as client:
        assert message in await mistake(client, name, **arguments)


async def test_a_filter_with_a_key_that_no_document_has_is_named(index):
    async with connected(Access({"faq": index})) as client:
        answer, text = await call(client, "search", query="sing", where={"yeer": 2020})
        other, _ = await call(client, "search", query="sing", where={"year": 1})
    assert answer["hits"] == other["hits"] == []
    assert answer["note"] == (
        "No document has the metadata key yeer; there are: kind, odd, secret, size, size.grams, when, year."
    )
    assert text.endswith(answer["note"])
    assert other["note"] is None


async def test_a_call_may_name_a_namespace(index):
    async with connected(Access({"faq": index})) as client:
        answer, _ = await call(client, "search", query="whales sing", namespace="ours")
        document, _ = await call(client, "get", ids=["whale"], namespace="ours")
        read = await client.read_resource(answer["hits"][0]["uri"])
    assert read_hits(answer) == as_hits(index.search("whales sing", 5, namespace="ours"))
    assert document["documents"][0]["text"] == read.contents[0].text == "Whales of ours sing."


async def test_a_caller_that_is_confined_sees_its_namespace_alone(index):
    async with connected(Access({"faq": index}, "ours", write=True)) as client:
        answer, _ = await call(client, "search", query="sing")
        listed, _ = await call(client, "list")
        documents, _ = await call(client, "list", index="faq")
        refused = await mistake(client, "search", query="sing", namespace="other")
        missing, _ = await call(client, "get", ids=["lark"])
        removed, _ = await call(client, "delete", ids=["lark", "whale"])
        added, _ = await call(client, "add", documents=[{"text": "new", "id": "new"}])
        with pytest.raises(MCPError, match="'other' is not open here"):
            await client.read_resource("tp-retrieval://faq/lark?namespace=other")
        with pytest.raises(MCPError, match="there is no such document"):
            await client.read_resource("tp-retrieval://faq/lark")
    assert [hit["text"] for hit in answer["hits"]] == ["Whales of ours sing."]
    keys = {"name": "faq", "documents": 1, "namespaces": None, "metadata_keys": ["secret"], "root": None}
    assert listed["indexes"] == [keys]
    assert [document["id"] for document in documents["documents"]] == ["whale"]
    assert refused == "namespace: 'other' is not open here; leave it out"
    assert missing["missing"] == ["lark"]
    assert (removed["removed"], added["namespace"]) == (1, "ours")
    assert index.namespaces() == {"": len(DOCUMENTS), "ours": 1}


@pytest.mark.parametrize("id_", ODD_IDS)
async def test_an_id_of_any_characters_is_an_address(index, id_):
    text = next(document.text for document in DOCUMENTS if document.id == id_)
    async with connected(Access({"faq": index})) as client:
        answer, _ = await call(client, "get", ids=[id_])
        read = await client.read_resource(answer["documents"][0]["uri"])
    assert answer["documents"][0]["id"] == id_
    assert (read.contents[0].text, read.contents[0].mime_type) == (text, "text/plain")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("tp-retrieval://faq/none", "there is no such document"),
        ("tp-retrieval://none/whale", "index: 'none' is not here; there are faq"),
        ("file:///etc/passwd", "is no resource here; a document is tp-retrieval://{index}/{id}"),
    ],
)
async def test_a_resource_that_is_not_there_is_named(index, uri, message):
    async with connected(Access({"faq": index})) as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
        templates = (await client.list_resource_templates()).resource_templates
    assert message in str(refused.value)
    assert (refused.value.code, refused.value.data) == (-32602, {"uri": uri})
    assert [template.uri_template for template in templates] == ["tp-retrieval://{index}/{id}{?namespace}"]


async def test_tools_that_change_documents_are_there_only_for_who_may(index):
    async with connected(Access({"faq": index})) as client:
        tools = (await client.list_tools()).tools
        for name, arguments in (("add", {"documents": [{"text": "x"}]}), ("delete", {"ids": ["whale"]})):
            with pytest.raises(MCPError, match=f"tool: '{name}' is not here; there are search, get, list"):
                await client.call_tool(name, arguments)
    assert [tool.name for tool in tools] == ["search", "get", "list"]
    assert all(tool.annotations.read_only_hint and not tool.annotations.destructive_hint for tool in tools)
    assert len(index) == len(DOCUMENTS) + 1
    async with connected(Access({"faq": index}, write=True)) as client:
        tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
    hints = {
        name: (hint.read_only_hint, hint.destructive_hint, hint.idempotent_hint, hint.open_world_hint)
        for name, hint in tools.items()
    }
    assert hints == {name: (True, False, True, False) for name in ("search", "get", "list")} | {
        "add": (False, True, False, False),
        "delete": (False, True, True, False),
    }


async def test_what_agents_and_people_read_names_all_there_is(index):
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
    async with connected(Access({"faq": index}, write=True)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        refused = await mistake(client, "search", query="x", where={"year": {"$foo": 1}})
    operators = re.findall(r"\$\w+", refused.partition("there are")[2])
    assert len(operators) > 10
    assert [
        name for name in operators if f"{name} " not in tools["search"].description.replace(";", " ").replace(",", " ")
    ] == []
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    assert {name: re.findall(r"`(\w+)`", re.sub(r"\(`.+?\)", "", rows[name])) for name in tools} == {
        name: [*tool.input_schema["properties"]] for name, tool in tools.items()
    }
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        ((_, servers),) = json.loads(block).items()
        assert (servers["docs"]["command"], servers["docs"]["args"][0]) == ("tp-retrieval", "mcp")


async def test_documents_are_added_replaced_and_removed(index):
    async with connected(Access({"faq": index}, write=True)) as client:
        documents = [
            {"text": "Basalt is dark.", "id": "basalt", "metadata": {"kind": "stone", "when": {"$date": "2023-01-02"}}},
            {"text": "Whales are mammals.", "id": "whale"},
            {"text": "No id."},
        ]
        added, text = await call(client, "add", documents=documents)
        stones, _ = await call(client, "list", index="faq", where={"when": {"$lt": {"$date": "2024-01-01"}}})
        bad = await mistake(client, "add", documents=[{"text": "x", "id": "a"}, {"text": "y", "id": "a"}])
        removed, told = await call(client, "delete", ids=["basalt", "lark", "none"])
    assert added["ids"][:2] == ["basalt", "whale"]
    assert added["ids"][2] in text
    assert [document["id"] for document in stones["documents"]] == ["basalt"]
    assert "documents[1].id: 'a' is documents[0].id too" in bad
    assert (removed["removed"], told) == (2, "2 documents removed from faq.")
    assert [document.text for document in index.get(["whale", *added["ids"][2:], "lark", "a"])] == [
        "Whales are mammals.",
        "No id.",
    ]


async def test_answers_fit_the_schemas_of_their_tools(index):
    calls = {
        "search": {"query": "sing"},
        "get": {"ids": ["whale", "none"]},
        "list": {"index": "faq"},
        "add": {"documents": [{"text": "x"}]},
        "delete": {"ids": ["lark"]},
    }
    async with connected(Access({"faq": index}, write=True)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert [*tools] == [*calls]
        for name, arguments in calls.items():
            jsonschema.validate(arguments, tools[name].input_schema)
            answer, _ = await call(client, name, **arguments)
            jsonschema.validate(answer, tools[name].output_schema)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**arguments, "filter": 1}, tools[name].input_schema)


async def test_two_searches_are_computed_at_once(index, toy, monkeypatch):
    together = threading.Barrier(2, timeout=30)
    embed = toy.embed_documents
    monkeypatch.setattr(toy, "embed_queries", lambda texts: [together.wait(), embed(texts)][1])
    async with connected(Access({"faq": index})) as client:
        first, second = await asyncio.gather(call(client, "search", query="sing"), call(client, "search", query="rock"))
    monkeypatch.undo()
    assert read_hits(first[0]) == as_hits(index.search("sing", 5))
    assert read_hits(second[0]) == as_hits(index.search("rock", 5))


async def test_access_is_asked_for_with_every_request(index):
    given = [Access({"faq": index}), Access({"faq": index}, write=True), Access({"a": index, "b": index})]
    requests = []
    async with connected(lambda request: requests.append(request) or given[0]) as client:
        assert len((await client.list_tools()).tools) == 3
        given.pop(0)
        assert len((await client.list_tools()).tools) == 5
        given.pop(0)
        assert [entry["name"] for entry in (await call(client, "list"))[0]["indexes"]] == ["a", "b"]
    assert set(requests) == {None}  # there is no HTTP request


def test_over_http_each_request_has_its_own_rights(index):
    """As an app that is mounted beside others."""
    rights = {"a": Access({"faq": index}), "b": Access({"faq": index}, "ours", write=True)}
    server = create_mcp(lambda request: rights[request.headers["x-key"]])
    app = server.streamable_http_app(json_response=True, stateless_http=True)

    def ask(key, method, **params):
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"accept": "application/json", "mcp-protocol-version": "2025-06-18", "x-key": key}
        return client.post("/mcp", json=message, headers=headers).json()["result"]

    with TestClient(app, base_url="http://localhost:8000") as client:
        tools = {key: [tool["name"] for tool in ask(key, "tools/list")["tools"]] for key in rights}
        arguments = {"query": "whales", "mode": "lexical"}
        hits = {
            key: ask(key, "tools/call", name="search", arguments=arguments)["structuredContent"]["hits"] for key in rights
        }
    assert tools == {"a": ["search", "get", "list"], "b": ["search", "get", "list", "add", "delete"]}
    assert {key: [hit["text"] for hit in found] for key, found in hits.items()} == {
        "a": ["Whales breathe air and sing."],
        "b": ["Whales of ours sing."],
    }


async def test_what_nobody_foresaw_keeps_its_words_on_this_side(index, caplog):
    def broken(request):
        raise RuntimeError("a secret")

    async with connected(broken) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("list", {})
    assert str(refused.value) == "internal error"
    assert "a secret" in caplog.text


def test_without_the_sdk_the_extra_is_named(without):
    without("mcp", "tp_retrieval.integrations.mcp")
    with pytest.raises(OptionalDependencyError, match=r"mcp is not installed. Run: pip install 'tp-retrieval\[mcp\]'"):
        __import__("tp_retrieval.integrations.mcp")


# -- the command


@pytest.fixture(scope="module")
def made(tmp_path_factory, embedder):
    """An index of a tiny model."""
    folder = tmp_path_factory.mktemp("made") / "faq"
    with Index.create(folder, embedder) as index:
        index.add(DOCUMENTS)
        index.add([Document("Whales of ours sing.", {}, "ours")], namespace="ours")
    return folder


def command(*arguments):
    return [sys.executable, "-m", "tp_retrieval", "mcp", *map(str, arguments)]


@asynccontextmanager
async def started(tmp_path, *arguments):
    """Start the command as a client does."""
    program, *words = command(*arguments)
    with (tmp_path / "errors").open("w") as errors:
        async with (
            stdio_client(
                StdioServerParameters(command=program, args=words, env={"OMP_NUM_THREADS": "1"}), errors
            ) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            yield session


async def test_the_command_serves_what_the_index_gives(made, embedder, tmp_path):
    async with started(tmp_path, f"docs={made}") as session:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["search", "get", "list"]
        both = await asyncio.gather(
            call(session, "search", query="who sings?", k=3), call(session, "search", query="a hard rock", mode="dense")
        )
        read = await session.read_resource("tp-retrieval://docs/docs%2Fa%20b.md%233")
    with Index.open(made, embedder) as index:
        wanted = index.search("who sings?", 3), index.search("a hard rock", 5, mode="dense")
    for (answer, _), hits in zip(both, wanted, strict=True):
        assert [(hit["rank"], hit["id"], hit["text"]) for hit in answer["hits"]] == [
            (hit.rank, hit.document.id, hit.document.text) for hit in hits
        ]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    assert read.contents[0].text == "An odd number, 0."


@pytest.mark.slow
async def test_words_are_searched_without_the_model(tmp_path, tiny_folder):
    model, folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model"), tmp_path / "index"
    with Index.create(folder, Embedder.from_pretrained(model, recipe=tiny.RECIPE, device="cpu")) as index:
        index.add(DOCUMENTS)
        want = index.search("sing", 5, mode="lexical")
    shutil.rmtree(model)
    async with started(tmp_path, folder, "--write") as session:
        answer, _ = await call(session, "search", query="sing", mode="lexical")
        refused = await mistake(session, "search", query="sing")
        removed, _ = await call(session, "delete", ids=["lark"])
    assert read_hits(answer) == as_hits(want)
    assert str(model) in refused
    assert removed["removed"] == 1
    with Index.open(folder) as index:
        assert len(index) == len(DOCUMENTS) - 1


async def test_the_command_confines_to_a_namespace(made, tmp_path):
    async with started(tmp_path, made, "--namespace", "ours") as session:
        answer, _ = await call(session, "search", query="sing", mode="lexical")
        missing, _ = await call(session, "get", ids=["whale"])
    assert [hit["id"] for hit in answer["hits"]] == ["ours"]
    assert missing["missing"] == ["whale"]


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def ask(process, number, method, **params):
    """Send a request as a line, and return the line that answers it."""
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@pytest.fixture
def process(made):
    with subprocess.Popen(
        command(made), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert ask(process, 1, "initialize", **HELLO)["result"]["serverInfo"]["name"] == "tp-retrieval"
        process.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        yield process
        process.kill()


@pytest.mark.slow
def test_stdout_holds_the_protocol_alone_and_the_end_of_stdin_ends_the_command(process):
    process.stdin.write("no JSON\n")
    answer = ask(process, 2, "tools/call", name="search", arguments={"query": "who sings?"})  # loads the model
    assert (answer["id"], answer["result"]["isError"]) == (2, False)
    assert len(answer["result"]["structuredContent"]["hits"]) == 5
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_while_it_waits_for_its_client(process, number):
    assert ask(process, 2, "tools/list")["id"] == 2
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()


def test_a_client_that_is_gone_ends_the_command(process):
    process.stdout.close()
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}) + "\n")
    process.stdin.flush()  # and stays open
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-index"], "no-such-index"),
        (["a=x", "a=y"], "the name 'a' is taken by x"),
        ([], "indexes"),
    ],
)
def test_mistakes_in_the_command_are_one_line(arguments, message):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr.lower()
