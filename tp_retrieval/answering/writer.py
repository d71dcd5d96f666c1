"""Text written by a language model, in pieces as it comes.

writer = TextWriter(embedder.backbone.language_model())
for piece in writer.write([Message("user", "Say hello.")], WritingOptions(max_tokens=50)):
    print(piece, end="")
"""

from __future__ import annotations

import atexit
import math
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakSet

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from tp_retrieval.answering.chat import Message, prompt_ids
from tp_retrieval.embedding.model.backbone import Backbone, LanguageModel
from tp_retrieval.errors import InputError

_UNKNOWN_CONTEXT = 4096  # tokens, where the configuration does not say
_COLDEST = 1e-3  # the least temperature that is not 0


@dataclass(frozen=True)
class WritingOptions:
    """How text is written: at most `max_tokens`, until one of the `stop` texts, greedily at temperature 0.

    At a higher temperature tokens are sampled among the likeliest that make up `top_p`; a `seed` makes that repeatable.
    """

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_tokens, int) or isinstance(self.max_tokens, bool) or self.max_tokens < 1:
            raise InputError(f"max_tokens: {self.max_tokens!r} must be a whole number from 1")
        heat, share = self.temperature, self.top_p
        if not isinstance(heat, (int, float)) or not (heat == 0 or _COLDEST <= heat < math.inf):
            raise InputError(f"temperature: {heat!r} must be 0 or a number from {_COLDEST}")
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise InputError(f"top_p: {share!r} must be above 0 and at most 1")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"stop: {self.stop!r} must be texts that are not empty")
        if self.seed is not None and (not isinstance(self.seed, int) or not 0 <= self.seed < 2**63):
            raise InputError(f"seed: {self.seed!r} must be a whole number from 0 to 2**63 - 1")


class Writing:
    """A text while it is written: iterate, once, for its pieces, each of whole characters; `close` ends it.

    `prompt_tokens` and `tokens` count what was read and written so far; `finish_reason` is "length" where the text was cut
    off at `max_tokens`, else "stop".
    """

    def __init__(self, run: _Run, backbone: Backbone, prompt_tokens: int, stop: tuple[str, ...], room: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.tokens = 0
        self.finish_reason: Literal["stop", "length"] = "stop"
        self._room = room
        self._run = run
        self._pieces = self._read(run, backbone, stop)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """End the writing, and wait for the step that runs."""
        self._run.close()
        self._pieces.close()

    def _read(self, run: _Run, backbone: Backbone, stop: tuple[str, ...]) -> Generator[str, None, None]:
        written: list[int] = []
        text = shown = ""
        try:
            for token in run:
                self.tokens += 1
                written.append(token)
                text = str(backbone.tokenizer.decode(written, skip_special_tokens=True))
                cut = min((text.find(mark) for mark in stop if mark in text), default=None)
                if cut is not None:
                    yield text[len(shown) : cut]
                    return
                safe = text[: len(text) - _held(text, stop)]
                if len(safe) > len(shown) and safe.startswith(shown):
                    yield safe[len(shown) :]
                    shown = safe
        finally:
            run.close()
        if self.tokens == self._room and written[-1] not in run.ends:
            self.finish_reason = "length"
        if len(text) > len(shown):
            yield text[len(shown) :]


class TextWriter:
    """A whole language model that writes; its weights are shared with whoever else uses it.

    Many threads may let it write at once, and embed with the same weights meanwhile.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.language_model = model
        self._model = model.model
        self._backbone = model.backbone

    @property
    def backbone(self) -> Backbone:
        """The model's blocks and tokenizer."""
        return self._backbone

    @property
    def context(self) -> int:
        """The most tokens of prompt and text together."""
        return self._backbone.max_positions or _UNKNOWN_CONTEXT

    def write(self, messages: Sequence[Message], options: WritingOptions | None = None) -> Writing:
        """Begin the model's next turn in a conversation; see `write_on`."""
        return self.write_on(prompt_ids(self._backbone, messages), options)

    def write_on(self, ids: Sequence[int], options: WritingOptions | None = None) -> Writing:
        """Begin what the model writes after a prompt's tokens; raise `InputError` for a prompt that leaves no room."""
        options = options or WritingOptions()
        if not ids:
            raise InputError("messages: they have no tokens")
        room = min(options.max_tokens, self.context - len(ids))
        if room < 1:
            raise InputError(f"messages: they have {len(ids)} tokens, and the model reads {self.context}; shorten them")
        run = _Run(self._model, ids, self._arguments(options, room))
        return Writing(run, self._backbone, len(ids), options.stop, room)

    def _arguments(self, options: WritingOptions, room: int) -> dict[str, Any]:
        ends = self._ends()
        sampling = [_Sampling(options)] if options.temperature > 0 else []
        return {
            "max_new_tokens": room,
            "max_length": None,  # this and the next may stand in a model's own configuration
            **{"num_beams": 1, "num_return_sequences": 1, "temperature": None, "top_p": None, "top_k": None},
            "do_sample": False,  # torch's own sampling takes from a generator that the process shares
            "logits_processor": LogitsProcessorList(sampling),
            "eos_token_id": ends or None,
            "pad_token_id": ends[0] if ends else 0,
        }

    def _ends(self) -> list[int]:
        """Return the tokens that end a turn: those of the generation's configuration, and the tokenizer's."""
        config = getattr(self._model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        listed = [*ends] if isinstance(ends, list) else [ends]
        listed.append(self._backbone.tokenizer.eos_token_id)
        return sorted({int(end) for end in listed if end is not None})


def _held(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end may yet change: half of a character, or the beginning of a stop text."""
    whole = text.rstrip("\ufffd")
    if len(whole) < len(text):
        return len(text) - len(whole)
    lengths = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


class _Run(BaseStreamer):
    """A call of `generate` in a thread of its own, whose tokens are read one by one; it begins with the first."""

    def __init__(self, model: Any, ids: Sequence[int], arguments: dict[str, Any]) -> None:
        self._tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._prompt_seen = False
        self._stopped = threading.Event()
        self.ends: tuple[int, ...] = tuple(arguments["eos_token_id"] or ())
        self._thread = threading.Thread(target=self._generate, args=(model, list(ids), arguments), daemon=True)

    def put(self, value: torch.Tensor) -> None:
        """Take new tokens; the first ones are the prompt's."""
        if self._prompt_seen:
            for token in value.flatten().tolist():
                self._tokens.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Know that no more tokens come; the thread's end says so, too."""

    def __iter__(self) -> Iterator[int]:
        if self._stopped.is_set():
            return
        _RUNS.add(self)
        self._thread.start()
        while True:
            token = self._tokens.get()
            if isinstance(token, BaseException):
                raise token
            if token is None:
                return
            yield token

    def close(self) -> None:
        """End the writing, and wait for the step that runs."""
        self._stopped.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():  # which may collect garbage
            self._thread.join()

    def _generate(self, model: Any, ids: list[int], arguments: dict[str, Any]) -> None:
        try:
            prompt = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                streamer=self,
                stopping_criteria=StoppingCriteriaList([_WhenSet(self._stopped)]),
                **arguments,
            )
        except BaseException as error:
            self._tokens.put(error)
        else:
            self._tokens.put(None)


class _WhenSet(StoppingCriteria):
    """A criterion that is met once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return one flag a text."""
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)


class _Sampling(LogitsProcessor):
    """Sampling by a generator of its own: with Gumbel noise on the log-probabilities, the largest is a sample of them."""

    def __init__(self, options: WritingOptions) -> None:
        self._heat = options.temperature
        self._share = options.top_p
        self._generator = torch.Generator()
        if options.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(options.seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return noisy log-probabilities of the next token, `(B, vocabulary)`; minus infinity for the unlikely ones."""
        likelihoods = (scores.double() / self._heat).log_softmax(dim=-1)
        order = likelihoods.argsort(dim=-1, descending=True)
        sorted_ = likelihoods.gather(-1, order)
        before = sorted_.exp().cumsum(dim=-1) - sorted_.exp()  # of the likelier tokens together
        likelihoods = likelihoods.scatter(-1, order, sorted_.masked_fill(before >= self._share, -torch.inf))
        uniform = torch.rand(likelihoods.shape, generator=self._generator, dtype=torch.float64).clamp(min=1e-300)
        return likelihoods - (-uniform.log()).log().to(likelihoods.device)


_RUNS: WeakSet[_Run] = WeakSet()


@atexit.register
def _end_all() -> None:
    """End what is still written when the process ends: torch in a thread that is cut off would abort it."""
    for run in list(_RUNS):
        run.close()
