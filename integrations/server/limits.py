"""What a server takes from one client, and the answer to more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server: what passes them is refused with status 413, or 429 where waiting helps."""

    body_bytes: int = 8 * 2**20
    texts: int = 2048
    characters: int = 200_000
    """Of one text."""
    hits: int = 1000
    requests: int = 256
    """At once."""
    waiting_tokens: int = 1_000_000
    """Of all texts that wait to be computed."""
    body_seconds: float = 30.0
    """From a request's first byte to its last."""

    def check(self, texts: Sequence[str], name: str) -> None:
        """Raise `RequestError` 413 if there are too many texts, or one is too long."""
        if len(texts) > self.texts:
            raise RequestError(413, f"{name}: {len(texts)} texts; one request may have {self.texts}", name)
        for i, text in enumerate(texts):
            if len(text) > self.characters:
                place = name if len(texts) == 1 else f"{name}[{i}]"
                raise RequestError(413, f"{place}: {len(text)} characters; a text may have {self.characters}", name)


class RequestError(Exception):
    """A request that is refused: an HTTP status, a message for people and the name of the field at fault."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
