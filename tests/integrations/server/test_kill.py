"""A server that is killed while documents are sent loses none that it answered for; the same call goes on where it was."""

import random
import subprocess
import sys
from itertools import count
from threading import Timer

import pytest

from tests.integrations.server.test_client import SERVE
from tp_retrieval import Client, Document, ServerError

PART = 50  # documents of a request


def documents(begin):
    return [Document(f"text {i} of a long list", {"n": i}, f"k-{i}") for i in range(begin, begin + PART)]


def started(model, index, place):
    command = [sys.executable, "-c", SERVE, model, index, f"unix:{place}/socket", place / "data"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"unix:{place}/socket\n"
    return process


@pytest.mark.slow
def test_fifty_kills_lose_nothing_that_was_answered(tiny_folder, folder, tmp_path):
    """Kill a server at random moments of sending, look each time for what it answered for, and send the same again."""
    model = tiny_folder("llama")
    chance, acknowledged = random.Random(50), 0
    for number in range(50):
        process = started(model, folder, tmp_path)
        with process, Client(f"unix:{tmp_path}/socket", "notes", api_key="the-key!") as client:
            if number == 0:
                client.create_index("notes", recipe="mean")
            there = client.get()
            assert [document.metadata["n"] for document in there[:acknowledged]] == list(range(acknowledged))
            assert len(there) in range(acknowledged, acknowledged + PART + 1)
            killer = Timer(chance.uniform(0.05, 0.5), process.kill)
            killer.start()
            with pytest.raises(ServerError) as broken:  # noqa: PT012
                for begin in count(acknowledged, PART):
                    client.add(documents(begin))
                    acknowledged = begin + PART
            assert broken.value.status is None
            killer.join()
    process = started(model, folder, tmp_path)
    with process, Client(f"unix:{tmp_path}/socket", "notes", api_key="the-key!") as client:
        texts = [f"text {i} of a long list" for i in range(acknowledged + PART)]
        client.add(texts, idempotency_key="k")
        assert [document.text for document in client.get()] == texts, "each once"
        process.terminate()
        assert process.wait(60) == 0
    assert acknowledged > 50 * PART
