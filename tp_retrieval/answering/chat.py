"""Messages as token ids, by the chat template of a model where it has one.

As in the embedding templates, template and texts meet only as token ids: what a document, or a user, writes is text, also
where it looks like the end of a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jinja2 import TemplateError

from tp_retrieval.embedding.forward.tokens import literal_ids, start_ids
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.errors import InputError

MsgRole = Literal["system", "user", "assistant"]

_PLACE = "⟨{}⟩"  # stands for the text of a message while the template is filled
_PLACES = re.compile(r"⟨(\d+)⟩")
_NAMES = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Message:
    """A turn of a conversation."""

    role: MsgRole
    text: str


def prompt_ids(backbone: Backbone, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of a conversation up to where the model's next turn begins.

    A model without a chat template gets the turns as lines with the speaker's name. Raises `InputError` for a conversation
    that the template refuses.
    """
    if not messages:
        raise InputError("messages: there is none")
    filled = _filled(backbone, messages)
    ids: list[int] = []
    for i, part in enumerate(_PLACES.split(filled)):
        text_of_message = i % 2 == 1
        ids += encoded(backbone, messages[int(part)].text) if text_of_message else literal_ids(backbone.tokenizer, part)
    return ids


def encoded(backbone: Backbone, text: str) -> list[int]:
    """Return the tokens of a text, in which special tokens are text."""
    ids: list[int] = backbone.plain_tokenizer.encode(text).ids
    return ids


def _filled(backbone: Backbone, messages: Sequence[Message]) -> str:
    """Return the template of a conversation with a mark where each message's text goes."""
    marked = [replace(message, text=_PLACE.format(i)) for i, message in enumerate(messages)]
    tokenizer = backbone.tokenizer
    if not tokenizer.chat_template:
        start = str(tokenizer.decode(start_ids(tokenizer)))
        turns = [f"{_NAMES[m.role]}: {m.text}" if m.role in _NAMES else m.text for m in marked]
        return start + "\n\n".join([*turns, "Assistant:"])
    first = messages[0].role
    attempts = [[(m.role, m.text) for m in marked]]
    if first == "system" and len(marked) > 1 and messages[1].role == "user":  # some templates know no system
        attempts.append([("user", f"{marked[0].text}\n\n{marked[1].text}"), *((m.role, m.text) for m in marked[2:])])
    reason: Exception | None = None
    for attempt in attempts:
        try:
            return str(
                tokenizer.apply_chat_template(
                    [{"role": role, "content": text} for role, text in attempt],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,  # of templates that know it; others ignore it
                )
            )
        except TemplateError as error:
            reason = error
    raise InputError(f"messages: the chat template of {backbone.name} refuses them ({reason})") from reason
