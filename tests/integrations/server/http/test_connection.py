"""Which connection gives way to a new one."""

import asyncio
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from tp_retrieval.integrations.server import Limits
from tp_retrieval.integrations.server.http.connection import Connection


class Transport:
    """What a connection calls of asyncio's, without a socket."""

    def __init__(self):
        self.written, self.closing, self.aborted = b"", False, False

    def get_extra_info(self, name):
        return None

    def set_write_buffer_limits(self, high):
        assert high == 0

    def is_closing(self):
        return self.closing

    def write(self, data):
        self.written += data

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True


@pytest.fixture
async def connect():
    """Return a function that opens a connection to a server of two."""
    config, state = uvicorn.Config(lambda *_: None, log_config=None), ServerState()
    config.load()
    opened = []

    def start():
        opened.append(Connection(Limits(connections=2), config, state, {}))
        opened[-1].connection_made(Transport())
        return opened[-1]

    yield start
    for one in opened:
        one.connection_lost(OSError())


async def test_the_connection_that_is_silent_longest_gives_way(connect):
    first, second = connect(), connect()
    first.waiting_since, second.waiting_since = 2.0, 1.0
    third = connect()
    assert [one.transport.aborted for one in (first, second, third)] == [False, True, False]


async def test_one_that_is_ending_gives_way_before_a_new_one_is_refused(connect):
    running, ending = connect(), connect()
    running.cycle, running.waiting_since = SimpleNamespace(response_complete=False, disconnected=False), None
    running.cycle.message_event = asyncio.Event()
    ending.transport.close()
    third = connect()
    assert [one.transport.aborted for one in (running, ending, third)] == [False, True, False]
    assert not third.transport.closing


async def test_a_new_one_is_refused_when_all_have_requests(connect):
    for one in (connect(), connect()):
        one.waiting_since = None
    third = connect()
    assert third.transport.closing
    assert third.transport.written.startswith(b"HTTP/1.1 503 ")
    assert b"2 connections have requests" in third.transport.written
