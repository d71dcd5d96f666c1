"""The limits of a server, and checks of requests against them."""

from __future__ import annotations

from dataclasses import dataclass

from tp_retrieval.integrations.server.errors import RequestError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server: what passes them is refused with status 413, or 429 where waiting helps."""

    body_bytes: int = 8 * 2**20
    texts: int = 2048
    characters: int = 200_000
    """Of one text."""
    conditions: int = 1000
    """Values, lists and objects in a search's `where`."""
    hits: int = 1000
    files: int = 100
    """Of one upload."""
    upload_bytes: int = 256 * 2**20
    """Of all files of an upload."""
    writers: int = 2
    """Answers that are written at once."""
    writer_seconds: float = 60.0
    """That a request waits for its turn to write."""
    requests: int = 256
    """At once."""
    waiting_tokens: int = 1_000_000
    """Of all texts that wait to be computed."""
    body_seconds: float = 30.0
    """From when a request may run until its body is whole."""
    answer_bytes: int = 64 * 2**20
    """Of all answers together that are computed or that their clients have not read."""
    write_seconds: float = 30.0
    """In which a client must read the next 64 KiB of its answer; else it is disconnected.

    This and the limits that follow are kept by `listen`.
    """
    head_bytes: int = 16 * 2**10
    """Of a request's headers."""
    head_seconds: float = 10.0
    """From when a connection is open, or the last request on it is answered, until the next one's headers are here."""
    connections: int = 1024
    """At once, and no more than half of the file descriptors that the process may have."""

    def texts_of(self, given: object, name: str) -> list[str]:
        """Return a list of texts, or of objects with `text`, as strings.

        Raises `RequestError` 413 if there are too many, or one is too long, and 400 if it is something else.
        """
        if not isinstance(given, list):
            raise RequestError(400, f"{name}: must be a list of texts", name)
        if len(given) > self.texts:
            raise RequestError(413, f"{name}: {len(given)} texts; one request may have {self.texts}", name)
        texts = [item.get("text") if isinstance(item, dict) else item for item in given]
        return [self.checked(text, name if len(texts) == 1 else f"{name}[{i}]") for i, text in enumerate(texts)]

    def checked(self, text: object, place: str) -> str:
        """Return a text; raise `RequestError` 413 if it is too long, and 400 if it is none."""
        field = place.partition("[")[0]
        if not isinstance(text, str):
            raise RequestError(400, f"{place}: must be a text", field)
        if len(text) > self.characters:
            raise RequestError(413, f"{place}: {len(text)} characters; a text may have {self.characters}", field)
        return text

    def check_where(self, where: object) -> None:
        """Raise `RequestError` 413 if a `where` has too many parts."""
        parts, left = 0, [where]
        while left:
            part = left.pop()
            parts += 1
            left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
            if parts > self.conditions:
                raise RequestError(413, f"where: over {self.conditions} values, lists and objects; no more may be", "where")
