"""Answers and chat over HTTP, whole and as they are written, against the answerer itself and with OpenAI's own client."""

import asyncio
import gc
import json
import threading

import openai
import pytest

from tests.integrations.server.conftest import HOSTS
from tp_retrieval import Answerer, Index
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.server import Limits, Settings, create_app


def events_of(text):
    """Return the names and values of server-sent events."""
    return [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\n")[1].removeprefix("data: ")))
        for block in text.strip().split("\n\n")
    ]


ASKED = {"query": "Which whale sings?", "k": 3, "max_tokens": 12, "min_evidence": None, "mode": "lexical"}


def test_an_answer_is_the_answerers_own(client, whole, folder):
    with Index.open(folder, whole) as index:
        hits = index.search(ASKED["query"], 3, mode="lexical")
    want = Answerer(whole, min_evidence=None).answer(ASKED["query"], hits, WritingOptions(max_tokens=12))
    answer = client.post("/v1/answers", json=ASKED).json()
    assert (answer["answer"], answer["refused"], answer["question"]) == (want.text, want.refused, ASKED["query"])
    assert [hit["id"] for hit in answer["hits"]] == [hit.document.id for hit in want.hits]
    assert [one["text"] for one in answer["sentences"]] == [sentence.text for sentence in want.sentences]


def test_an_answer_comes_in_pieces(client):
    whole = client.post("/v1/answers", json=ASKED).json()
    response = client.post("/v1/answers", json=ASKED | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [name for name, _ in events[:1]] == ["hits"]
    assert [hit["id"] for hit in events[0][1]["hits"]] == [hit["id"] for hit in whole["hits"]]
    assert "".join(value["text"] for name, value in events if name == "text").strip() == whole["answer"].strip()
    assert events[-1] == ("answer", whole)


def test_little_evidence_is_refused(client):
    answer = client.post("/v1/answers", json=ASKED | {"min_evidence": 1.0}).json()
    assert answer["refused"]
    assert answer["answer"] == "The documents do not answer this."


def test_openais_client_chats(client, whole):
    openais = openai.OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client)
    messages = [{"role": "user", "content": "Say something."}]
    model = openais.models.list().data[0].id
    done = openais.chat.completions.create(model=model, messages=messages, max_tokens=8)
    from tp_retrieval.answering.chat import Message
    from tp_retrieval.answering.writer import TextWriter

    writing = TextWriter(whole.backbone.language_model()).write([Message("user", "Say something.")], WritingOptions(8))
    assert done.choices[0].message.content == "".join(writing)
    assert done.choices[0].finish_reason == writing.finish_reason
    assert done.usage.completion_tokens == writing.tokens
    assert done.usage.total_tokens == writing.prompt_tokens + writing.tokens
    chunks = list(
        openais.chat.completions.create(
            model=model, messages=messages, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == done.choices[0].message.content
    assert chunks[-1].usage.total_tokens == done.usage.total_tokens
    with_index = openais.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Which whale sings?"}]}],
        max_tokens=4,
        extra_body={"index": "things", "k": 2},
    )
    assert len(with_index.model_extra["hits"]) == 2
    assert with_index.usage.prompt_tokens > done.usage.prompt_tokens + 20


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages[0].content: a part of type 'image_url'; the model reads text alone",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "model": "another"}, 404, "model: 'another' is not served"),
        ({"messages": [{"role": "user", "content": "a"}], "index": "nowhere"}, 404, "index: 'nowhere' is not served"),
        ({"messages": [{"role": "user", "content": "x" * 60_000}]}, 400, "messages: they have"),
        ({"messages": [{"role": "user", "content": "a"}], "stop": [""]}, 400, "stop: "),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_answered_is_refused_with_a_status(client, asked, status, message, stream):
    response = client.post("/v1/chat/completions", json=asked | {"stream": stream})
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


def test_a_server_without_a_writing_model_says_so(serving):
    client = serving(Settings(method=None))
    for path, asked in (("answers", ASKED), ("chat/completions", {"messages": [{"role": "user", "content": "a"}]})):
        for stream in (False, True):
            response = client.post(f"/v1/{path}", json=asked | {"stream": stream})
            assert response.status_code == 404
            assert "without a writing model" in response.json()["error"]["message"]


def test_who_waits_too_long_for_a_turn_to_write_is_told(serving):
    client = serving(Settings(Limits(writers=1, writer_seconds=0.05)))
    service = client.app.state.service
    with service._turn():
        response = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert client.post("/v1/answers", json=ASKED).status_code == 200


@pytest.mark.parametrize("path", ["answers", "chat/completions"])
def test_a_client_that_leaves_gives_its_turn_back(whole, folder, path):
    """The stream is left after its first event, as by a client that closes its connection."""
    app = create_app(whole, {"things": folder}, settings=Settings(Limits(writers=1)), allowed_hosts=HOSTS)
    asked = ASKED if path == "answers" else {"messages": [{"role": "user", "content": "a"}]}
    body = json.dumps(asked | {"stream": True, "max_tokens": 400}).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/v1/{path}",
        "raw_path": f"/v1/{path}".encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
        "client": ("here", 1),
        "server": ("testserver", 80),
        "state": {},
    }

    async def leave():
        left = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body" and message.get("body"):
                left.set()
                await asyncio.sleep(0)

        await asyncio.wait_for(app(scope, receive, send), 60)

    gc.disable()
    try:
        asyncio.run(leave())
        service = app.state.service
        assert service._writers.acquire(timeout=5)
        service._writers.release()
    finally:
        gc.enable()
        app.state.service.close()


def test_nothing_is_written_for_a_client_that_is_gone(client):
    from tp_retrieval.integrations.server.batcher import CALLER
    from tp_retrieval.integrations.server.errors import GoneError
    from tp_retrieval.integrations.server.service import wanted

    service, gone = client.app.state.service, threading.Event()
    gone.set()
    token = CALLER.set(gone)
    try:
        with pytest.raises(GoneError):
            list(wanted(iter(["a"])))
        with service._turn(), service._turn(), pytest.raises(GoneError), service._turn():
            pass
    finally:
        CALLER.reset(token)
    with service._turn(), service._turn():
        pass
