"""A server that is killed while documents are sent loses none that it answered for; the same call goes on where it was."""

import random
import signal
import subprocess
import sys
from threading import Timer

import pytest

from tests.integrations.server.test_client import SERVE
from tp_retrieval import Client, Document, ServerError

TEXTS = [f"text {i} of a long list" for i in range(1_500)]
PART = 100  # documents of a request


def started(model, index, place):
    command = [sys.executable, "-c", SERVE, model, index, f"unix:{place}/socket", place / "data"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"unix:{place}/socket\n"
    return process


def killed_and_resumed(model, index, place, rounds):
    """Kill a server at random moments of sending, look at what it answered for, and send again by the same key."""
    chance = random.Random(rounds)
    acknowledged, interrupted, name = 0, 0, "notes"
    for number in range(rounds):
        process = started(model, index, place)
        killer = None
        try:
            with Client(f"unix:{place}/socket", name, api_key="the-key!") as client:
                if number == 0:
                    client.create_index(name, recipe="mean")
                there = {document.id for document in client.get()}
                assert {f"k-{i}" for i in range(acknowledged)} <= there
                killer = Timer(chance.uniform(0, 1), process.kill)
                killer.start()
                for begin in range(0, len(TEXTS), PART):
                    client.add([Document(text, id=f"k-{i}") for i, text in enumerate(TEXTS[begin : begin + PART], begin)])
                    acknowledged = max(acknowledged, begin + PART)
        except ServerError as error:
            if error.status is not None:
                raise
            interrupted += 1
        finally:
            if killer is not None:
                killer.join()
            process.kill()
            process.wait()
            process.stdout.close()
    process = started(model, index, place)
    try:
        with Client(f"unix:{place}/socket", name, api_key="the-key!") as client:
            ids = client.add(TEXTS, idempotency_key="k")
            assert [document.text for document in client.get(ids)] == TEXTS
            assert len(client.get()) == len(TEXTS), "each once"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()
    return interrupted, acknowledged


def test_two_kills_lose_nothing_that_was_answered(tiny_folder, folder, tmp_path):
    interrupted, _ = killed_and_resumed(tiny_folder("llama"), folder, tmp_path, 2)
    assert interrupted


@pytest.mark.slow
def test_fifty_kills_lose_nothing_that_was_answered(tiny_folder, folder, tmp_path):
    interrupted, acknowledged = killed_and_resumed(tiny_folder("llama"), folder, tmp_path, 50)
    assert interrupted > 20
    assert acknowledged > 0
