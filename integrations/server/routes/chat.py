"""Chat in OpenAI's shape, on the weights that embed; with an index the last message is searched for first."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from tp_retrieval import Hit, TPRetrievalError
from tp_retrieval.answering.answerer import INSTRUCTIONS
from tp_retrieval.answering.chat import ChatRole, Message
from tp_retrieval.answering.writer import Writing, WritingOptions
from tp_retrieval.integrations.server.access import Access
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import encode
from tp_retrieval.integrations.server.routes.dependencies import Limited, Served, hit_record
from tp_retrieval.integrations.server.routes.search import AS_EVENTS, streamed
from tp_retrieval.integrations.server.schemas.requests import ChatRequest, ChatTurn
from tp_retrieval.integrations.server.schemas.responses import ChatResponse
from tp_retrieval.integrations.server.service import wanted

router = APIRouter()

_ROLES: dict[str, ChatRole] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@router.post(
    "/v1/chat/completions",
    response_model=ChatResponse,
    responses=AS_EVENTS,
)
def chat(asked: ChatRequest, service: Served, access: Access, limits: Limited) -> Response:
    """Write the next turn of a conversation.

    `index` names one whose hits for the last message are put before the conversation, with the instruction to cite them;
    they come with the answer, as `hits`.
    """
    service.check_model(asked.model)
    limits.check_where(asked.where)
    turns = [_turn(turn, i, limits) for i, turn in enumerate(asked.messages)]
    hits: list[Hit] = []
    if asked.index is not None:
        options = {"where": asked.where, "namespace": asked.namespace}
        hits = service.search(access, asked.index, turns[-1].text, asked.k, options)  # type: ignore[arg-type]
        turns = [_passages(hits), *turns]
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.model}
    if asked.stream:
        return streamed(_chunks(service, turns, asked, head, hits))
    with service.writing(turns, _options(asked)) as writing:
        text = "".join(wanted(writing))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": writing.finish_reason}
        answer = {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(writing)}
    if asked.index is not None:
        answer["hits"] = [hit_record(hit) for hit in hits]
    return Response(encode(answer), media_type="application/json")


def _options(asked: ChatRequest) -> WritingOptions:
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return WritingOptions(
        max_tokens=asked.max_completion_tokens or asked.max_tokens or 256,
        stop=tuple(stop),
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
    )


def _turn(turn: ChatTurn, place: int, limits: Limited) -> Message:
    """Return a message as the model reads it; raise `RequestError` for what is no text."""
    name = f"messages[{place}].content"
    if isinstance(turn.content, str):
        return Message(_ROLES[turn.role], limits.checked(turn.content, name))
    other = [part.get("type") for part in turn.content if part.get("type") != "text"]
    if other:
        raise RequestError(400, f"{name}: a part of type {other[0]!r}; the model reads text alone", "messages")
    return Message(_ROLES[turn.role], limits.checked("".join(str(part.get("text", "")) for part in turn.content), name))


def _passages(hits: Sequence[Hit]) -> Message:
    numbered = "\n\n".join(f"[{i}] {hit.passage}" for i, hit in enumerate(hits, 1))
    return Message("system", f"{INSTRUCTIONS}\n\n{numbered}")


def _chunks(
    service: Served, turns: Sequence[Message], asked: ChatRequest, head: dict[str, Any], hits: Sequence[Hit]
) -> Generator[str, None, None]:
    """Yield the events of OpenAI's stream."""

    def chunk(delta: dict[str, str], reason: str | None = None, more: Mapping[str, object] = {}) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {encode({**head, 'object': 'chat.completion.chunk', 'choices': [choice], **more})}\n\n"

    found = {"hits": [hit_record(hit) for hit in hits]} if asked.index is not None else {}
    with service.writing(turns, _options(asked)) as writing:
        yield chunk({"role": "assistant", "content": ""}, more=found)
        try:
            for piece in writing:
                yield chunk({"content": piece})
        except TPRetrievalError as error:  # the status is sent already
            yield f"data: {RequestError(503, str(error)).body.decode()}\n\n"
            return
        yield chunk({}, writing.finish_reason)
        if asked.stream_options is not None and asked.stream_options.include_usage:
            usage = {**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(writing)}
            yield f"data: {encode(usage)}\n\n"
    yield "data: [DONE]\n\n"


def _usage(writing: Writing) -> dict[str, int]:
    read, written = writing.prompt_tokens, writing.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
