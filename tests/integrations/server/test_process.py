"""A server in a process of its own, asked through a socket in the file system: bad clients, many clients, and the end."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.integrations.server.conftest import TEXTS
from tp_retrieval import InputError
from tp_retrieval.integrations.server.batcher import CALLER
from tp_retrieval.integrations.server.http.guard import Guard
from tp_retrieval.integrations.server.http.listening import opened
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.metrics import Metrics

_SERVE = """
import sys
from tests import tiny
from tp_retrieval import Embedder
from tp_retrieval.integrations.server import Limits, Settings, create_app, listen
model, index, address, timeout = sys.argv[1:]
embedder = Embedder.from_pretrained(model, recipe=tiny.RECIPE, dtype="float32", device="cpu")
app = create_app(embedder, {"things": index}, settings=Settings(Limits(body_seconds=2), method=None))
listen(app, address, started=lambda name: print(name, flush=True), graceful_timeout=int(timeout))
"""


@pytest.fixture
def start(tiny_folder, folder, tmp_path):
    """Return a function that starts a server: its process, and its socket's file."""
    file = tmp_path / "socket"
    with ExitStack() as running:

        def start(timeout):
            command = [sys.executable, "-c", _SERVE, tiny_folder("llama"), folder, f"unix:{file}", str(timeout)]
            process = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            running.callback(process.kill)
            assert process.stdout.readline() == f"unix:{file}\n"
            return process, file

        yield start


@pytest.fixture
def server(start):
    """A running server: its process, and its socket's file."""
    return start(60)


@pytest.fixture
def ask(server):
    """Return a client whose every request takes a connection of its own."""
    file = str(server[1])

    def post(path, **given):
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=file, verify=False), base_url="http://server", timeout=60
        ) as client:
            return client.post(path, **given)

    return post


def embed(ask, text):
    return ask("/v1/embeddings", json={"input": text}).status_code


def test_bad_clients_get_their_answer_and_disturb_no_one(server, ask):
    hanging = socket.socket(socket.AF_UNIX)
    hanging.connect(str(server[1]))
    hanging.sendall(b'POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"input": ')
    gone = socket.socket(socket.AF_UNIX)
    gone.connect(str(server[1]))
    gone.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
    gone.close()
    with ThreadPoolExecutor(16) as pool:
        good = [pool.submit(embed, ask, TEXTS[i % 12]) for i in range(40)]
        bad = {
            "10 MB": pool.submit(ask, "/v1/embeddings", content=b"x" * 10_000_000),
            "100,000 texts": pool.submit(ask, "/v1/embeddings", json={"input": ["a"] * 100_000}),
            "broken": pool.submit(
                ask, "/v1/embeddings", content=b'{"input": "a', headers={"content-type": "application/json"}
            ),
            "long": pool.submit(ask, "/v1/embeddings", json={"input": "a" * 1_000_000}),
        }
        assert [one.result() for one in good] == [200] * 40
    found = {name: (one.result().status_code, one.result().json()["error"]["message"]) for name, one in bad.items()}
    assert found["10 MB"] == (413, "the body has 10000000 bytes; it may have 8388608")
    assert found["100,000 texts"] == (413, "input: 100000 texts; one request may have 2048")
    assert found["broken"][0] == 400
    assert found["long"] == (413, "input: 1000000 characters; a text may have 200000")
    hanging.settimeout(30)
    answer = b"".join(iter(lambda: hanging.recv(65536), b""))
    hanging.close()
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"must be here within 2 seconds" in answer
    assert embed(ask, "still there") == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx leaves refused sockets open
def test_every_request_that_was_accepted_is_answered_after_a_sigterm(server, ask):
    process, file = server
    accepted, refused, broken = [], [], []

    def one(i):
        connection = httpx.HTTPTransport(uds=str(file), verify=False)
        try:
            with httpx.Client(transport=connection, base_url="http://server", timeout=60) as client:
                accepted.append(client.post("/v1/embeddings", json={"input": f"text {i}"}).status_code)
        except httpx.ConnectError:
            refused.append(i)  # it came after the server had stopped to listen
        except httpx.HTTPError as error:
            broken.append(repr(error))

    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(one, i) for i in range(1000)]
        while len(accepted) < 300:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        for call in calls:
            call.result()
    assert set(accepted) == {200}
    assert broken == []
    assert len(accepted) + len(refused) == 1000
    assert len(accepted) < 1000
    assert process.wait(30) == 0
    assert not file.exists()


@pytest.mark.slow
def test_a_client_that_never_reads_its_answer_does_not_keep_the_server(start):
    process, file = start(1)
    body = json.dumps({"input": [f"text {i}" for i in range(2000)]}).encode()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(file))
        deaf.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
        deaf.sendall(b"content-length: %d\r\n\r\n%s" % (len(body), body))
        assert deaf.recv(8) == b"HTTP/1.1"  # the answer has begun, and does not fit in what the kernel holds
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_killed_servers_socket_is_taken_over(start):
    process, file = start(60)
    process.kill()
    process.wait()
    assert file.is_socket()
    start(60)


def test_a_socket_is_taken_from_no_one_and_left_to_its_successor(tmp_path):
    file = tmp_path / "socket"
    with opened(f"unix:{file}", 0):
        with pytest.raises(InputError, match="in use"), opened(f"unix:{file}", 0):
            pass
        file.unlink()
        successor = opened(f"unix:{file}", 0)
        assert successor.__enter__()[1] == f"unix:{file}"
    assert file.is_socket()
    successor.__exit__(None, None, None)
    assert not file.exists()
    with opened(f"unix:{file}", 0) as (_, _, unname):
        file.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(file))
            unname()
            assert file.exists()
        file.unlink()
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(InputError, match="in use"), opened(f"unix:{tmp_path / 'plain'}", 0):
        pass
    assert (tmp_path / "plain").read_text() == "mine"


def test_what_is_open_to_all_counts_for_no_bound_and_its_bodies_are_not_read():
    async def app(scope, receive, send):
        assert guard._running == 0
        await send({"type": "http.response.start", "status": 405, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    sent = []
    guard = Guard(app, Limits(requests=0), ["key"], Metrics(), threading.Event(), open_paths={"/health", "/"})
    for path in ("/health", "/", "/static-offline-docs/a.js"):
        asyncio.run(guard({"type": "http", "path": path, "headers": []}, receive, send))
    assert [message["status"] for message in sent[::2]] == [405] * 3


def test_a_body_in_pieces_too_slow_is_refused_and_one_in_time_is_whole():
    seen = []

    async def app(scope, receive, send):
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run(pieces, wait):
        sent, left = [], list(pieces)

        async def receive():
            await asyncio.sleep(wait)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message):
            sent.append(message)

        guard = Guard(app, Limits(body_seconds=0.2), [], Metrics(), threading.Event())
        await guard({"type": "http", "path": "/v1/embeddings", "headers": []}, receive, send)
        return sent[0]["status"], sent[-1]["body"]

    assert asyncio.run(run([b"a", b"b", b"c"], 0))[0] == 200
    assert seen == [b"abc"]
    status, body = asyncio.run(run([b"a", b"b", b"c"], 0.15))
    assert status == 408
    assert "within 0.2 seconds; 1 bytes are" in json.loads(body)["error"]["message"]


def test_a_client_that_goes_away_is_noted_for_the_threads_that_work_for_it():
    found = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        caller = CALLER.get()
        found.append(caller.is_set())
        assert (await receive())["type"] == "http.disconnect"
        found.append(caller.is_set())

    async def run():
        messages = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            await asyncio.sleep(0.01)
            return messages.pop(0)

        guard = Guard(app, Limits(), [], Metrics(), threading.Event())
        await guard({"type": "http", "path": "/v1/search", "headers": []}, receive, None)
        return CALLER.get()

    assert asyncio.run(run()) is None
    assert found == [False, True]


def test_large_bodies_enter_one_at_a_time_and_a_small_one_does_not_wait_for_them():
    entered, sizes = [], [40_001, 40_002, 40_003, 10]

    async def app(scope, receive, send):
        entered.append(len((await receive())["body"]))

    def receiver(size):
        messages = [{"type": "http.request", "body": b"a" * size, "more_body": False}]

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        return receive

    async def run():
        guard = Guard(app, Limits(), [], Metrics(), threading.Event())
        scope = {"type": "http", "path": "/v1/embeddings", "headers": []}
        await asyncio.gather(*(guard(scope, receiver(size), None) for size in sizes))

    asyncio.run(run())
    assert [size for size in entered if size > 10] == sizes[:3]
    assert entered.index(10) < entered.index(40_002)
