"""Citations of an answer, checked against the passages while the answer is written.

text = CitedText(passages)
for piece in pieces:
    print(text.feed(piece), end="")
print(text.finish())
text.sentences[0].sources       # (1,): the numbers of the passages that the sentence is found in

A number that the model writes is kept where the passage exists and has the sentence's words; a sentence without one gets
the passage that has most of them. A sentence whose words no passage has gets none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SUPPORT = 0.6
"""Share of a sentence's content words that a passage must have to be its source; `benchmarks/answers.py` measures it."""

_MARK = re.compile(r"\s*\[\s*(\d+(?:\s*[,;]\s*\d+)*)\s*\]")
_PERHAPS_MARK = re.compile(r"\s*(?:\[[\d\s,;]*)?")
_ENDED = re.compile(r"[.!?…。！？][\"'”’)\]]*$")
_FENCE = "```"  # around code
_STEM = 5  # letters that inflected forms share
_SHORT = 3  # letters of words that tell nothing
_IDEOGRAPHS = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class CitedSentence:
    """A sentence of an answer, and the numbers of the passages that have its words, from 1; none where no passage has."""

    text: str
    sources: tuple[int, ...]


class CitedText:
    """An answer that is written piece by piece, with its citations checked.

    `feed` and `finish` return what can be shown: the words at once, the numbers at the end of their sentence. `repeats`
    says that the last sentence has the words of an earlier one, as a small model's have when it does not find an end.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        self._words = [content_words(passage) for passage in passages]
        self._waiting = ""
        self._sentence = ""
        self._marked: list[int] = []
        self.sentences: list[CitedSentence] = []
        self.repeats = False

    def feed(self, piece: str) -> str:
        """Take a piece of what the model writes; return what can be shown by now."""
        self._waiting += piece
        return self._taken(final=False)

    def finish(self) -> str:
        """Return the rest."""
        return self._taken(final=True).rstrip() + self._closed()

    def _taken(self, *, final: bool) -> str:
        shown = ""
        while self._waiting:
            mark = _MARK.match(self._waiting)
            perhaps = _PERHAPS_MARK.match(self._waiting)
            numbers = [] if mark is None else [int(number) for number in re.split(r"[,;]", mark[1])]
            if mark is not None and self._is_citation(mark[0], numbers):
                self._marked += numbers
                self._waiting = self._waiting[mark.end() :]
                continue
            if perhaps and perhaps.end() == len(self._waiting) and not final:
                break
            space = re.match(r"\s+", self._waiting)
            taken = space[0] if space else (re.match(r"\[|[^\s\[]+", self._waiting) or [""])[0]
            if space and self._is_whole(taken):
                shown += self._closed()
            self._sentence += taken
            shown += taken
            self._waiting = self._waiting[len(taken) :]
        return shown

    def _is_citation(self, mark: str, numbers: Sequence[int]) -> bool:
        """Return whether numbers in brackets are no index of code: `a[0]`, or x[100] with five passages."""
        if self._sentence.count("`") % 2:
            return False
        return mark[0].isspace() or not self._sentence[-1:].isalnum() or max(numbers) <= len(self._words)

    def _is_whole(self, space: str) -> bool:
        """Return whether a sentence, or a block of code, ends before a space."""
        if self._sentence.count(_FENCE) % 2 or not content_words(self._sentence):
            return False
        ended = self._sentence.rstrip().endswith(_FENCE) or _ENDED.search(self._sentence)
        return space.count("\n") > 1 or bool(ended)

    def _closed(self) -> str:
        """End a sentence; return the numbers of its sources."""
        words = content_words(self._sentence)
        if not words:
            return ""
        shares = [len(words & passage) / len(words) for passage in self._words]
        sources = sorted({n for n in self._marked if 0 < n <= len(shares) and shares[n - 1] >= SUPPORT})
        if not sources and max(shares, default=0.0) >= SUPPORT:
            sources = [shares.index(max(shares)) + 1]
        self.repeats = any(words == content_words(earlier.text) for earlier in self.sentences)
        self.sentences.append(CitedSentence(self._sentence.strip(), tuple(sources)))
        self._sentence, self._marked = "", []
        return "".join(f" [{number}]" for number in sources)


def content_words(text: str) -> set[str]:
    """Return the beginnings of the longer words and the numbers of a text, and pairs of ideographs."""
    words = set()
    for word in re.findall(r"\w+", text.casefold()):
        if _IDEOGRAPHS.search(word):
            words |= {word[i : i + 2] for i in range(max(1, len(word) - 1))}
        elif len(word) > _SHORT or any(character.isdigit() for character in word):
            words.add(word[:_STEM])
    return words
