"""A server in a process of its own whose clients do not read, do not ask, or send headers without end."""

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integrations.server.wide import WIDTH, vector_of
from tp_retrieval.integrations.server import Limits

ROOT = Path(__file__).parents[4]
MB = 10**6
_ANSWER = 2048 * WIDTH * 4  # bytes of the biggest answer's vectors


class Wide:
    """A running server with big answers."""

    def __init__(self, process, file):
        self.process = process
        self.file = str(file)

    def ask(self, path, **given):
        """Ask on a connection of its own."""
        transport = httpx.HTTPTransport(uds=self.file, verify=False)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
            return client.request("POST" if given else "GET", path, **given)

    def embed(self, texts):
        return self.ask("/v1/embeddings", json={"input": texts})

    def connect(self, data=b""):
        """Return a connection over which something was sent."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.file)
        if data:  # else it may be refused and closed by now
            connection.sendall(data)
        return connection

    def memory(self, name="VmRSS"):
        """Return the process's resident bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    def until(self, condition, what, seconds=60):
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.02)


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts a server with limits of one's own and a bound on file descriptors."""
    with ExitStack() as running:

        def start(files=0, **limits):
            file = tmp_path / "socket"
            command = [
                sys.executable,
                "-m",
                "tests.integrations.server.wide",
                f"unix:{file}",
                str(files),
                json.dumps(limits),
            ]
            process = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT))
            running.callback(process.kill)
            assert process.stdout.readline() == f"unix:{file}\n"
            return Wide(process, file)

        yield start


@pytest.fixture
def open_connections():
    """Return a stack that closes connections at the test's end."""
    with ExitStack() as stack:
        yield stack


def request(texts, path="/v1/embeddings", **headers):
    """Return a whole request for embeddings as bytes."""
    body = json.dumps({"input": texts}).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


BIG = [f"text {'a' * (i % 50)}" for i in range(2048)]


@pytest.mark.slow
def test_a_big_answer_is_the_vectors(serve):
    server = serve()
    response = server.embed(BIG)
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"object", "data", "model", "usage"}
    assert answer["usage"] == {"prompt_tokens": 4096 - 41, "total_tokens": 4096 - 41, "cut_tokens": 0}
    assert answer["data"] == [
        {"object": "embedding", "index": i, "embedding": vector_of(text).tolist()} for i, text in enumerate(BIG)
    ]


@pytest.mark.slow
def test_a_client_that_does_not_read_counts_as_a_running_request(serve, open_connections):
    server = serve(requests=2)
    deaf = [open_connections.enter_context(server.connect(request(BIG))) for _ in range(2)]
    for connection in deaf:
        assert connection.recv(12) == b"HTTP/1.1 200"
    time.sleep(0.5)  # all that can be sent has been sent
    response = server.embed("a text")
    assert (response.status_code, response.json()["error"]["message"]) == (
        429,
        "2 requests are running, no more may; try later",
    )
    deaf[0].close()
    server.until(lambda: server.embed("a text").status_code == 200, "a closed connection still counts")


@pytest.mark.slow
def test_bytes_held_for_clients_are_bounded(serve, open_connections):
    server = serve(answer_bytes=_ANSWER + 1000)
    deaf = open_connections.enter_context(server.connect(request(BIG)))
    assert deaf.recv(12) == b"HTTP/1.1 200"
    response = server.embed(BIG)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert f"{_ANSWER} bytes of answers are held for clients" in response.json()["error"]["message"]
    assert server.ask("/health").status_code == 200
    deaf.close()
    server.until(lambda: server.embed(BIG).status_code == 200, "a closed connection's answer is still held")


@pytest.mark.slow
def test_a_client_that_does_not_read_is_disconnected(serve, open_connections):
    server = serve(requests=1, write_seconds=1)
    deaf = open_connections.enter_context(server.connect(request(BIG)))
    assert deaf.recv(12) == b"HTTP/1.1 200"
    server.until(lambda: server.embed("a text").status_code == 200, "it is still connected", 30)
    with contextlib.suppress(ConnectionResetError):
        rest = b"".join(iter(lambda: deaf.recv(2**20), b""))
        assert not rest.endswith(b"0\r\n\r\n")  # the answer was cut off
        assert len(rest) < 10 * MB


@pytest.mark.slow
def test_24_clients_that_read_nothing_take_under_100_mb_and_delay_no_one(serve, open_connections):
    server = serve()
    assert server.embed("a text").status_code == 200
    before = server.memory()
    for _ in range(24):
        open_connections.enter_context(server.connect(request(BIG)))
    took = [health_seconds(server) for _ in range(100)]
    assert server.memory("VmHWM") - before < 100 * MB
    assert statistics.median(took) < 0.1


def health_seconds(server):
    begin = time.perf_counter()
    with server.connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
    return time.perf_counter() - begin


@pytest.mark.slow
def test_health_is_answered_while_a_big_answer_is_encoded_and_sent(serve):
    server = serve()
    took, done = [], threading.Event()

    def read():
        try:
            assert len(server.embed(BIG).content) > 20 * MB
        finally:
            done.set()

    reader = threading.Thread(target=read)
    reader.start()
    while not done.is_set():
        took.append(health_seconds(server))
    reader.join()
    assert len(took) > 10
    assert statistics.median(took) < 0.1
    assert max(took) < 1


@pytest.mark.slow
def test_headers_without_end_are_refused_early(serve, open_connections):
    server = serve()
    assert server.embed("a text").status_code == 200
    before = server.memory()
    connection = open_connections.enter_context(server.connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\n"))
    line, sent = b"x-a: " + b"a" * 8000 + b"\r\n", 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < 315 * MB:
            connection.sendall(line)
            sent += len(line)
    assert sent < 5 * MB
    assert server.memory("VmHWM") - before < 20 * MB
    assert b" 431 " in connection.recv(100)
    assert server.ask("/health").status_code == 200


@pytest.mark.slow
def test_one_long_header_is_refused_with_the_limit(serve, open_connections):
    server = serve()
    long = server.connect(request("a text", cookie="a" * 100_000))
    answer = open_connections.enter_context(long).recv(10_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert f"a request may have {Limits().head_bytes}" in error["message"]


@pytest.mark.slow
def test_silent_connections_leave_descriptors_for_a_client(serve, open_connections):
    server = serve(files=128, head_seconds=600)
    silent = [open_connections.enter_context(server.connect()) for _ in range(130)]
    begin = time.monotonic()
    assert server.embed(["a text"]).status_code == 200
    assert time.monotonic() - begin < 5
    silent[0].settimeout(10)
    assert silent[0].recv(1) == b""  # the one that was silent longest gave way
    descriptors = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    assert descriptors < 110


@pytest.mark.slow
def test_a_head_that_comes_too_slowly_is_refused_and_silence_is_ended(serve, open_connections):
    server = serve(head_seconds=1)
    silent = open_connections.enter_context(server.connect())
    slow = open_connections.enter_context(server.connect(b"GET /health HT"))
    second = open_connections.enter_context(server.connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /he"))
    begin = time.monotonic()
    assert silent.recv(1) == b""
    answer = b"".join(iter(lambda: slow.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 1 seconds" in answer
    answers = b"".join(iter(lambda: second.recv(1000), b""))
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_connection_with_a_running_request_is_not_ended(serve, open_connections):
    server = serve(head_seconds=3, connections=2)
    first = open_connections.enter_context(server.connect(request(BIG)))
    assert first.recv(12) == b"HTTP/1.1 200"
    time.sleep(4)  # longer than it may be silent
    for _ in range(5):
        open_connections.enter_context(server.connect())
    assert server.ask("/health").status_code == 200
    rest = b""
    while not rest.endswith(b"0\r\n\r\n"):
        data = first.recv(2**20)
        assert data, "the answer was cut off"
        rest = rest[-10:] + data


@pytest.mark.slow
def test_what_is_refused_before_the_application_has_a_status_and_a_reason(serve, open_connections):
    server = serve(connections=1)
    broken = open_connections.enter_context(server.connect(b"no http at all\r\n\r\n"))
    status, message = refusal_of(broken)
    assert status == 400
    assert message.startswith("illegal request line")
    running = open_connections.enter_context(server.connect(request(BIG)))
    assert running.recv(12) == b"HTTP/1.1 200"
    status, message = refusal_of(open_connections.enter_context(server.connect()))
    assert (status, message) == (503, "1 connections have requests, no more may; try later")
    running.close()
    server.until(lambda: refused_or_answered(server) == 200, "a closed connection still counts")


def refused_or_answered(server):
    try:
        return server.ask("/health").status_code
    except httpx.TransportError:
        return 0


def refusal_of(connection):
    """Return the status and the message of a refusal, to the end of its connection."""
    head, _, body = b"".join(iter(lambda: connection.recv(10_000), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["message"]
