"""Answers: the same JSON whether short or long, in slices, off the event loop, and counted while they are held."""

import asyncio
import json
import threading
from itertools import pairwise

import numpy as np
import pytest

from tests.integrations.server.conftest import TEXTS
from tp_retrieval.integrations.server import Limits, Settings
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import SLICE, AnswerMemory, encode, hold, in_slices, listing


def messages_of(response):
    """Return the bodies that a response sends."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()

    asyncio.run(response({"type": "http", "method": "GET", "headers": []}, receive, send))
    return [message["body"] for message in sent[1:]]


@pytest.mark.parametrize("count", [0, 1, 2, 500, 5000])
def test_the_json_is_that_of_the_whole_value(count):
    rows = [{"index": i, "text": 'a"b\ud800é' * (i % 30), "numbers": [0.1 * i, -1e-30]} for i in range(count)]
    response = listing({"object": "list", "usage": {"tokens": 3}}, "data", (encode(row) for row in rows))
    parts = messages_of(response)
    assert json.loads(b"".join(parts)) == {"object": "list", "usage": {"tokens": 3}, "data": rows}
    longest = max(map(len, map(json.dumps, rows)), default=0)
    assert all(len(part) < SLICE + 3 * longest + 100 for part in parts)
    assert (len(parts) > 5) == (count == 5000)


def test_a_short_answer_has_a_length_and_a_long_one_none(client):
    assert "content-length" in client.post("/v1/embeddings", json={"input": TEXTS}).headers
    response = client.post("/v1/embeddings", json={"input": TEXTS * 20})
    assert "content-length" not in response.headers
    rows = np.array([one["embedding"] for one in response.json()["data"]])
    assert len(rows) == 240
    assert np.array_equal(rows[:12], rows[12:24])


def test_rows_are_encoded_in_threads_and_no_faster_than_they_are_sent():
    threads, seen, encoded = set(), [], []

    def rows():
        for i in range(100):
            threads.add(threading.get_ident())
            encoded.append(i)
            yield encode("a" * SLICE)

    async def send(message):
        seen.append(len(encoded))

    async def receive():
        await asyncio.Event().wait()

    async def run():
        response = await asyncio.to_thread(listing, {"a": 1}, "rows", rows())
        await response({"type": "http", "method": "GET", "headers": []}, receive, send)
        return threading.get_ident()

    assert asyncio.run(run()) not in threads
    assert seen[0] <= 3
    assert all(later - earlier <= 1 for earlier, later in pairwise(seen))
    assert seen[-1] == 100


def test_an_error_before_the_first_byte_has_its_own_status(serving, monkeypatch):
    client = serving(Settings(Limits(answer_bytes=1), method=None))
    assert client.post("/v1/embeddings", json={"input": "a text"}).status_code == 200  # nothing else is held

    def broken(value):
        raise RequestError(507, "no row can be encoded")

    monkeypatch.setattr("tp_retrieval.integrations.server.routes.models.encode", broken)
    response = client.post("/v1/embeddings", json={"input": TEXTS})
    assert (response.status_code, response.json()["error"]["message"]) == (507, "no row can be encoded")


def test_a_body_goes_on_in_slices_and_ends_with_a_message_of_its_own():
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        sliced = in_slices(send)
        await sliced({"type": "http.response.start", "status": 200, "headers": []})
        await sliced({"type": "http.response.body", "body": body[:10], "more_body": True})
        await sliced({"type": "http.response.body", "body": body[10:]})

    body = bytes(range(256)) * 1000
    asyncio.run(run())
    assert sent[0]["status"] == 200
    assert b"".join(message["body"] for message in sent[1:]) == body
    assert [len(message["body"]) for message in sent[1:]] == [10, SLICE, SLICE, SLICE, 256_000 - 10 - 3 * SLICE, 0]
    assert [message["more_body"] for message in sent[1:]] == [True] * 5 + [False]


def test_held_bytes_are_counted_by_request_and_given_back():
    memory = AnswerMemory(100)
    hold(1000)  # of no request
    with memory.request():
        hold(500)  # more than there may be, but nothing else is held
        with pytest.raises(RequestError, match="500 bytes of answers are held for clients, 100 may be") as error:
            memory.check()
        assert error.value.status == 429
    with memory.request():
        hold(60)
        with pytest.raises(RequestError, match="60 bytes of answers"):
            hold(41)
        hold(40)
        with pytest.raises(RequestError, match="100 bytes of answers"):
            memory.check()
    memory.check()
    memory.take(100)
