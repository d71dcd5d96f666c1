"""Citations of an answer, checked against the passages while the answer is written.

text = CitedText(passages)
for piece in pieces:
    print(text.feed(piece), end="")
print(text.finish())
text.sentences[0].sources       # (1,): the numbers of the passages that the sentence is found in

A number that the model writes is kept where the passage exists and has the sentence's words; a sentence without one gets
the passage that has most of them. A sentence whose words no passage has gets none. Numbers in brackets that are no
citation stay where they are: in code, after an opening bracket, several of which one is no passage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SUPPORT = 0.6
"""Share of a sentence's content words that a passage must have to be its source; `benchmarks/answers.py` measures it."""

_MARK = re.compile(r"\s*\[\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4}){0,9})\s*\]")
_PERHAPS_MARK = re.compile(r"\s*(?:\[[\d\s,;]{0,60}(?:\]\s*)?)?")
_LINE = re.compile(r"[-*•|]|\d{1,3}[.)]\s")
"""The beginning of a line that is a sentence of its own: an item of a list, a row of a table."""
_NUMBER_OF_ITEM = re.compile(r"\s*\d{1,3}[.)]")
_AHEAD = 6  # characters behind the end of a line by which such a beginning is known
_ENDED = re.compile(r"[.!?…。！？][\"'”’)\]]{0,3}$")
_FENCE = "```"  # around code
_INVENTED = 100  # below which a number alone in brackets at the end of a sentence is meant for a passage
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
            perhaps = _PERHAPS_MARK.match(self._waiting)
            if perhaps and perhaps.end() == len(self._waiting) and not final:
                break
            mark = _MARK.match(self._waiting)
            if mark and self._is_citation(mark[0], mark[1], self._waiting[mark.end() :]):
                self._marked += [int(number) for number in re.split(r"[,;]", mark[1])]
                self._waiting = self._waiting[mark.end() :]
                continue
            space = re.match(r"\s+", self._waiting)
            if space and "\n" in space[0] and len(self._waiting) < space.end() + _AHEAD and not final:
                break
            taken = space[0] if space else (re.match(r"\[[\d\s,;]*\]?|[^\s\[]+", self._waiting) or [""])[0]
            if space and self._is_whole(taken, self._waiting[space.end() :]):
                shown += self._closed()
            self._sentence += taken
            shown += taken
            self._waiting = self._waiting[len(taken) :]
        return shown

    def _is_citation(self, mark: str, numbers: str, behind: str) -> bool:
        """Return whether numbers in brackets are meant for passages.

        One that is no passage is taken for an invented citation where it stands alone at the end of a sentence.
        """
        before = self._sentence.rstrip()[-1:]
        line = self._sentence.rpartition("\n")[2]
        if (
            self._sentence.count("`") % 2
            or line.startswith(("    ", "\t"))
            or before in tuple("([{=,$_")
            or behind[:1] == "("
        ):
            return False
        at_end = (
            not behind.strip() or behind.lstrip()[0] in ".,;:!?[)" or "\n" in behind[: len(behind) - len(behind.lstrip())]
        )
        listed = [int(number) for number in re.split(r"[,;]", numbers)]
        if all(0 < number <= len(self._words) for number in listed):
            return mark[0].isspace() or at_end or not before.isalnum()
        return at_end and mark[0].isspace() and len(listed) == 1 and 0 < listed[0] < _INVENTED

    def _is_whole(self, space: str, behind: str) -> bool:
        """Return whether a sentence, an item of a list or a block of code ends before a space."""
        ended = bool(_ENDED.search(self._sentence)) or self._sentence.endswith(_FENCE) or space.count("\n") > 1
        if not ended and not ("\n" in space and _LINE.match(behind)):
            return False
        if self._sentence.count(_FENCE) % 2 or _NUMBER_OF_ITEM.fullmatch(self._sentence):
            return False
        return bool(content_words(self._sentence))

    def _closed(self) -> str:
        """End a sentence; return the numbers of its sources."""
        words = content_words(self._sentence)
        if not words:
            return ""
        shares = [len(words & passage) / len(words) for passage in self._words]
        sources = sorted({n for n in self._marked if 0 < n <= len(shares) and shares[n - 1] >= SUPPORT})
        if not sources and max(shares, default=0.0) >= SUPPORT:
            sources = [shares.index(max(shares)) + 1]
        if self._sentence.count(_FENCE) % 2:  # code that was cut off: a number would stand in it
            sources = []
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
