"""The answerer: it writes an answer from hits, cites them, and refuses where they hold none.

answerer = Answerer(embedder)
answer = answerer.answer("How do I copy a list?", index.search("How do I copy a list?", 5))
print(answer.text)            # ... use copy.copy(). [1]
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from tp_retrieval.answering.chat import Message, encoded, prompt_ids
from tp_retrieval.answering.citations import CitedSentence, CitedText
from tp_retrieval.answering.writer import TextWriter, Writing, WritingOptions
from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.forward.tokens import tokens_kept
from tp_retrieval.embedding.model.backbone import Backbone, LanguageModel
from tp_retrieval.errors import InputError
from tp_retrieval.reranking.methods import QueryLikelihood
from tp_retrieval.reranking.prompted import CONTENT_FREE, PromptScorer
from tp_retrieval.types import Hit, check_text

NOT_FOUND = "The documents do not answer this."
"""The text of an answer that is refused."""

INSTRUCTIONS = (
    "Answer the question in one to three sentences, from the numbered passages alone. After each sentence write the number "
    "of the passage it is from, such as [1]. If the passages do not answer the question, write: " + NOT_FOUND
)
CONTEXT = 3072
"""Tokens of prompt and answer together, if the model reads so many; more passages make small models lose the thread."""
MIN_EVIDENCE = 0.1
"""A tenth of the question's surprise; `benchmarks/answers.py` measures how often that is right."""
_FORGED = re.compile(r"^\[(\d+)\]", re.MULTILINE)  # what would look like the beginning of another passage
_LEAST = 32  # tokens of a passage that are worth reading


@dataclass(frozen=True)
class Answer:
    """An answer with its sources.

    `hits` are those that were read, in the order of their numbers from 1. `text` has `[n]` after each sentence whose words
    the n-th hit has; `sentences` has the same apart. It is `refused` where the hits hold none: with `evidence` below the
    threshold, or by the model.
    """

    question: str
    text: str
    refused: bool
    evidence: float | None
    hits: tuple[Hit, ...] = ()
    sentences: tuple[CitedSentence, ...] = ()

    @property
    def sources(self) -> dict[int, Hit]:
        """The hits that are cited, by number."""
        numbers = sorted({number for sentence in self.sentences for number in sentence.sources})
        return {number: self.hits[number - 1] for number in numbers}

    @property
    def unsupported(self) -> tuple[str, ...]:
        """The sentences whose words no hit has: the model's own knowledge, or its invention."""
        return tuple(sentence.text for sentence in self.sentences if not sentence.sources)


class AnswerStream:
    """An answer while it is written: iterate, once, for its text in pieces, then read `answer`; `close` ends it early."""

    def __init__(self, writing: Writing | None, cited: CitedText, answer: Answer) -> None:
        self._writing = writing
        self._cited = cited
        self._answer = answer
        self._text = ""
        self._shown = self._show()

    def __iter__(self) -> Iterator[str]:
        return self._shown

    def close(self) -> None:
        """End the writing."""
        self._shown.close()
        if self._writing is not None:
            self._writing.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; what is not yet read of the text is written now."""
        for _ in self:
            pass
        text = self._text.casefold()
        if self._answer.refused or not text or NOT_FOUND.rstrip(".").casefold() in text:
            return replace(self._answer, text=NOT_FOUND, refused=True)
        return replace(self._answer, text=self._text, sentences=tuple(self._cited.sentences))

    def _show(self) -> Generator[str, None, None]:
        for text in [NOT_FOUND] if self._writing is None else self._checked(self._writing):
            shown = text if self._text else text.lstrip()
            self._text += shown
            if shown:
                yield shown

    def _checked(self, writing: Writing) -> Iterator[str]:
        """Yield what is written with its citations checked, up to a sentence that comes again."""
        for piece in writing:
            yield self._cited.feed(piece)
            if self._cited.repeats:
                writing.close()
        yield self._cited.finish()


class Answerer:
    """A language model that answers questions from hits, with the weights that embed and rerank.

    `model` is an `Embedder`, whose weights are shared, or what `Embedder.from_model` takes. `min_evidence` is the
    `evidence` below which the answer is refused without being written; None never refuses. `context` bounds prompt and
    answer in tokens. Raises `UnsupportedModelError` for a model that has no LM head, `InputError` for no model.
    """

    def __init__(
        self,
        model: object,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        instructions: str = INSTRUCTIONS,
        min_evidence: float | None = MIN_EVIDENCE,
        context: int = CONTEXT,
    ) -> None:
        check_text(instructions, "instructions")
        if min_evidence is not None and not (isinstance(min_evidence, (int, float)) and min_evidence == min_evidence):
            raise InputError(f"min_evidence: {min_evidence!r} must be a number, or None to refuse nothing")
        if not isinstance(context, int) or isinstance(context, bool) or context < 1:
            raise InputError(f"context: {context!r} must be a whole number from 1")
        self._writer = TextWriter(language_model_of(model, tokenizer))
        self._instructions = instructions
        self._min_evidence = min_evidence
        self._context = min(context, self._writer.context)
        self._scorer: PromptScorer | None = None

    def answer(self, question: str, hits: Sequence[Hit], options: WritingOptions | None = None) -> Answer:
        """Return the answer to a question from its hits."""
        return self.stream(question, hits, options).answer

    def stream(self, question: str, hits: Sequence[Hit], options: WritingOptions | None = None) -> AnswerStream:
        """Return the answer while it is written."""
        check_text(question, "question")
        options = options or WritingOptions()
        hits = [hit for hit in hits if hit.passage.strip()]
        if not hits:
            return AnswerStream(None, CitedText([]), Answer(question, NOT_FOUND, refused=True, evidence=None))
        messages, read = self._packed(question, hits, options.max_tokens)
        evidence = None
        if self._min_evidence is not None:
            evidence = self.evidence(question, read)
            if not evidence >= self._min_evidence:  # nor where it is not a number
                return AnswerStream(None, CitedText([]), Answer(question, NOT_FOUND, refused=True, evidence=evidence))
        answer = Answer(question, "", refused=False, evidence=evidence, hits=read)
        return AnswerStream(self._writer.write(messages, options), CitedText([hit.passage for hit in read]), answer)

    def evidence(self, question: str, hits: Sequence[Hit]) -> float:
        """Return how much of the question's surprise the best of the hits takes away: 0 none, 1 all, below 0 where it adds.

        With the mean log-likelihood L of the question's tokens after a document (Sachan et al., EMNLP 2022):
        1 - max L(question | hit) / L(question | "N/A").
        """
        if self._scorer is None:
            model, method = self._writer.language_model, QueryLikelihood()
            self._scorer = PromptScorer(model, method, calibrate=False, max_tokens=self._context)
        texts = [*(hit.passage for hit in hits), CONTENT_FREE]
        *after, without = self._scorer.score_pairs([(question, text) for text in texts])
        return 1 - float(max(after)) / float(without) if without else 0.0

    def _packed(self, question: str, hits: Sequence[Hit], reserved: int) -> tuple[list[Message], tuple[Hit, ...]]:
        """Return the messages with as many hits as the context holds, the last one cut, and those hits."""
        backbone = self._writer.backbone

        def messages(passages: Sequence[str]) -> list[Message]:
            numbered = "\n\n".join(f"[{i}] {passage}" for i, passage in enumerate(passages, 1))
            return [Message("system", self._instructions), Message("user", f"{numbered}\n\nQuestion: {question}")]

        room = self._context - reserved - len(prompt_ids(backbone, messages([])))
        passages: list[str] = []
        for i, hit in enumerate(hits, 1):
            room -= len(encoded(backbone, f"[{i}]\n\n")) + 1
            passage = _cut(backbone, _FORGED.sub(r"(\1)", hit.passage), room)
            if passage is None:
                break
            passages.append(passage)
            room -= len(encoded(backbone, passage))
        if not passages:
            most = f", of the {self._writer.context} that the model reads" if self._context < self._writer.context else ""
            raise InputError(
                f"question: beside it, the instructions and {reserved} tokens of answer no hit fits in {self._context} "
                f"tokens{most}; ask for a shorter answer (max_tokens)" + (", or raise context" if most else "")
            )
        return messages(passages), tuple(hits[: len(passages)])


def language_model_of(model: object, tokenizer: PreTrainedTokenizerBase | None) -> LanguageModel:
    """Return the whole language model of an embedder, or of what `Embedder.from_model` takes."""
    backbone = model.backbone if isinstance(model, Embedder) else Embedder.from_model(model, tokenizer).backbone
    return backbone.language_model()


def _cut(backbone: Backbone, text: str, room: int) -> str | None:
    """Return a text, its beginning where it has more tokens than there is room, or None where that is too little."""
    encoding = backbone.plain_tokenizer.encode(text)
    kept = tokens_kept(encoding.offsets, len(encoding.ids) - room)
    if kept == len(encoding.ids):
        return text
    return text[: encoding.offsets[kept - 1][1]] + " …" if kept >= _LEAST else None
