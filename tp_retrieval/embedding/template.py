"""A prompt template, parsed once: `This sentence : <PST> "{text}" means in one word:"`.

Template and text meet only as token ids. The text is never formatted into a string that is parsed again, so braces,
placeholders and other templates inside a text stay text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tp_retrieval.errors import RecipeError

TEXT = "{text}"
SLOT = "<PST>"


@dataclass(frozen=True)
class Template:
    """A parsed template with `{text}` once and the slot `<PST>` at most once before it.

    `head` is what precedes the slot (empty without one), `before` and `after` surround the text. Whitespace counts as
    written. Raises `RecipeError` for anything else.
    """

    source: str
    head: str = field(init=False, repr=False)
    before: str = field(init=False, repr=False)
    after: str = field(init=False, repr=False)
    has_slot: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise RecipeError(f"template: expected a string, got {type(self.source).__name__} {self.source!r}")
        for mark, allowed in ((TEXT, "once"), (SLOT, "at most once")):
            count = self.source.count(mark)
            if count > 1 or (mark == TEXT and count == 0):
                raise RecipeError(f"template: {mark} must stand {allowed}, found {count} times in {self.source!r}")
        front, _, after = self.source.partition(TEXT)
        if SLOT in after:
            raise RecipeError(f"template: {SLOT} must stand before {TEXT} in {self.source!r}")
        head, slot, before = front.partition(SLOT)
        if not slot:
            head, before = "", front
        for name, value in (("head", head), ("before", before), ("after", after), ("has_slot", bool(slot))):
            object.__setattr__(self, name, value)


def clean(text: str) -> str:
    """Return the text as the method's authors clean it (their code, arXiv 2412.11556).

    A text that does not end in one of `.?"'` gets a full stop, double quotes become single ones, and a final question
    mark becomes a full stop. The empty text stays empty.
    """
    if not text:
        return text
    if text[-1] not in ".?\"'":
        text += "."
    text = text.replace('"', "'")
    return text[:-1] + "." if text[-1] == "?" else text
