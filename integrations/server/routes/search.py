"""Searches, and answers that are written from their hits."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from itertools import chain
from typing import Any

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Depends
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tp_retrieval import Hit, TPRetrievalError
from tp_retrieval.answering.answerer import Answer
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.server.access import Access
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import encode
from tp_retrieval.integrations.server.routes.dependencies import Limited, Served, held, hit_records
from tp_retrieval.integrations.server.schemas.requests import AnswerRequest, SearchRequest
from tp_retrieval.integrations.server.schemas.responses import AnswerResponse, SearchResponse
from tp_retrieval.integrations.server.service import wanted

router = APIRouter()

EVENTS = "text/event-stream"

_EVENT = {"type": "object", "required": ["data"], "properties": {name: {"type": "string"} for name in ("event", "data")}}
AS_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {EVENTS: {"schema": _EVENT}}}}


def _check_search(asked: SearchRequest, limits: Limited) -> None:
    limits.checked(asked.query, "query")
    limits.check_where(asked.where)
    if asked.k > limits.hits:
        raise RequestError(413, f"k: {asked.k} hits; a search may have {limits.hits}", "k")


@router.post("/v1/search", dependencies=[Depends(_check_search)], response_model=SearchResponse)
def search(asked: SearchRequest, service: Served, access: Access) -> Response:
    """Find the documents of an index that answer a query, best first, with the parts of each score.

    With `render` each hit has `html` too: its text as Markdown or highlighted code, without scripts, images and forms.
    """
    begin = time.perf_counter()
    hits = service.search(access, asked.index, asked.query, asked.k, asked.options, rerank=asked.rerank)
    milliseconds = round(1000 * (time.perf_counter() - begin), 1)
    return held({"query": asked.query, "milliseconds": milliseconds}, "hits", hit_records(hits, render=asked.render))


def _check_question(asked: AnswerRequest, limits: Limited) -> None:
    _check_search(asked, limits)


@router.post(
    "/v1/answers",
    dependencies=[Depends(_check_question)],
    response_model=AnswerResponse,
    responses=AS_EVENTS,
)
def answer(asked: AnswerRequest, service: Served, access: Access) -> Response:
    """Answer a question in sentences that cite the hits they are from; `query` is the question.

    With `stream` there are server-sent events: `hits` with those that are read, `text` with pieces of the answer, and
    `answer` with the whole of it.
    """
    hits = service.search(access, asked.index, asked.query, asked.k, asked.options, rerank=asked.rerank)
    options = WritingOptions(max_tokens=asked.max_tokens)
    if asked.stream:
        return streamed(_events(service, asked, hits, options))
    with service.answering(asked.query, hits, options, asked.min_evidence) as stream:
        for _ in wanted(stream):
            pass
        record = _answer_record(stream.answer, render=asked.render)
    return held({name: value for name, value in record.items() if name != "hits"}, "hits", record["hits"])


def _events(service: Served, asked: AnswerRequest, hits: list[Hit], options: WritingOptions) -> Generator[str, None, None]:
    with service.answering(asked.query, hits, options, asked.min_evidence) as stream:
        yield _event("hits", {"hits": hit_records(hits, render=asked.render)})
        try:
            for piece in stream:
                yield _event("text", {"text": piece})
            yield _event("answer", _answer_record(stream.answer, render=asked.render))
        except TPRetrievalError as error:  # the status is sent already
            yield f"event: error\ndata: {RequestError(503, str(error)).body.decode()}\n\n"


class _Stream(StreamingResponse):
    """An answer whose events end with it, also where the client leaves."""

    def __init__(self, events: Generator[str, None, None]) -> None:
        self._events = events
        super().__init__(chain([next(events)], events), media_type=EVENTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and let what writes them end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._events.close)


def streamed(events: Generator[str, None, None]) -> StreamingResponse:
    """Return an answer of server-sent events; what is raised before the first one has a status of its own."""
    return _Stream(events)


def _event(name: str, value: Mapping[str, object]) -> str:
    return f"event: {name}\ndata: {encode(value)}\n\n"


def _answer_record(answer: Answer, *, render: bool) -> dict[str, Any]:
    return {
        "question": answer.question,
        "answer": answer.text,
        "refused": answer.refused,
        "evidence": answer.evidence,
        "sentences": [{"text": sentence.text, "sources": list(sentence.sources)} for sentence in answer.sentences],
        "hits": hit_records(answer.hits, render=render),
    }
