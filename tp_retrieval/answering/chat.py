"""Messages as token ids, by the chat template of a model where it has one.

As in the embedding templates, template and texts meet only as token ids: what a document, or a user, writes is text, also
where it looks like the end of a turn.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tp_retrieval.embedding.forward.tokens import literal_ids, special_tokens, start_ids
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.errors import InputError
from tp_retrieval.types import check_text

ChatRole = Literal["system", "user", "assistant"]

_NAMES = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Message:
    """A turn of a conversation."""

    role: ChatRole
    text: str


def prompt_ids(backbone: Backbone, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of a conversation up to where the model's next turn begins.

    A model without a chat template gets the turns as lines with the speaker's name. Raises `InputError` for a conversation
    that the template refuses, or of which it leaves something out.
    """
    if not messages:
        raise InputError("messages: there is none")
    for i, message in enumerate(messages):
        check_text(message.text, f"messages[{i}]")
    tokenizer = backbone.tokenizer
    marks = "|".join(map(re.escape, sorted(filter(None, special_tokens(tokenizer)), key=len, reverse=True)))
    ids: list[int] = []
    waiting = ""  # what is tokenised together: a text and the template's words around it, up to a special token
    for part in _filled(backbone, messages):
        if isinstance(part, int):
            waiting += messages[part].text
            continue
        for i, piece in enumerate(re.split(f"({marks})", part) if marks else [part]):
            if i % 2:
                ids += [*encoded(backbone, waiting), *literal_ids(tokenizer, piece)]
                waiting = ""
            else:
                waiting += piece
    return ids + encoded(backbone, waiting)


def encoded(backbone: Backbone, text: str) -> list[int]:
    """Return the tokens of a text, in which special tokens are text."""
    ids: list[int] = backbone.plain_tokenizer.encode(text).ids if text else []
    return ids


def _filled(backbone: Backbone, messages: Sequence[Message]) -> list[str | int]:
    """Return the template of a conversation: its words, and the number of the message where a text goes."""
    tokenizer = backbone.tokenizer
    placeholders = [f"<{secrets.token_hex(8)}>" for _ in messages]  # for which the template is filled; no text has them
    if not tokenizer.chat_template:
        turns = [f"{_NAMES[m.role]}: {p}" if m.role in _NAMES else p for m, p in zip(messages, placeholders, strict=True)]
        start = str(tokenizer.decode(start_ids(tokenizer)))
        return _split(start + "\n\n".join([*turns, "Assistant:"]), placeholders) or []
    roles = [message.role for message in messages]
    attempts: list[list[dict[str, Any]]] = []
    for as_parts in (False, True):  # some templates want the parts of a text and pictures
        contents: list[Any] = [[{"type": "text", "text": text}] if as_parts else text for text in placeholders]
        attempts.append([{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)])
        if roles[:2] == ["system", "user"]:  # some templates know no system
            merged = f"{placeholders[0]}\n\n{placeholders[1]}"
            first = [{"type": "text", "text": merged}] if as_parts else merged
            attempts.append([{"role": "user", "content": first}, *attempts[-1][2:]])
    reason: object = "it leaves out a text"
    for attempt in attempts:
        try:
            filled = str(
                tokenizer.apply_chat_template(
                    attempt,
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,  # of templates that know it; others ignore it
                )
            )
        except Exception as error:  # a template is a program
            reason = error
            continue
        parts = _split(filled, placeholders)
        if parts is not None:
            return parts
    raise InputError(f"messages: the chat template of {backbone.name} refuses them ({reason})")


def _split(filled: str, placeholders: Sequence[str]) -> list[str | int] | None:
    """Return a filled template as words and numbers of placeholders; None unless each of those stands in it once."""
    if any(filled.count(placeholder) != 1 for placeholder in placeholders):
        return None
    pieces = re.split(f"({'|'.join(placeholders)})", filled)
    return [placeholders.index(piece) if i % 2 else piece for i, piece in enumerate(pieces)]
