"""A frozen language model as LlamaIndex LLM, on the weights that embed and rerank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from tp_retrieval import Embedder, InputError
from tp_retrieval.answering.chat import ChatRole, Message
from tp_retrieval.answering.writer import TextWriter, Writing, WritingOptions
from tp_retrieval.integrations.loading import (
    LazyWriter,
    LoadingFields,
    fields_of,
    settings_of,
    with_model,
    with_new_names,
)
from tp_retrieval.types import check_text

_ROLES: dict[MessageRole, ChatRole] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.MODEL: "assistant",
}


class TPLLM(LoadingFields, CustomLLM):
    """Write with a language model: chats by its own chat template, a prompt as one message of a user.

    `model` is what `TPEmbedding(model=)` takes: a hub id, a folder or a GGUF file, loaded with the first message, or a
    model in memory with its `tokenizer`, or an object that holds both. `from_embedder` shares an embedder's weights.
    """

    model: str | None = Field(default=None, description="Hub id, folder or GGUF file.")
    max_tokens: int = Field(default=256, description="Longest text, in tokens.")
    temperature: float = Field(default=0.0, description="0 is greedy.")
    top_p: float = Field(default=1.0, description="Share of the probability that is sampled from.")
    seed: int | None = Field(default=None, description="Makes sampling repeatable.")
    stop: list[str] = Field(default_factory=list, description="Texts that end the writing.")

    _lazy: LazyWriter = PrivateAttr(default_factory=LazyWriter)

    def __init__(self, **fields: Any) -> None:
        fields, embedder = with_model(fields, "TPLLM")
        super().__init__(**fields)
        if embedder is not None:
            self._lazy = LazyWriter(embedder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex finds this class."""
        return "TPLLM"

    @classmethod
    def from_embedder(cls, embedder: Embedder, **fields: Any) -> TPLLM:
        """Write with the model of an embedder."""
        self = cls(**fields_of(embedder), **fields)
        self._lazy = LazyWriter(embedder)
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> TPLLM:
        """Return the LLM that `to_dict` wrote."""
        return super().from_dict(with_new_names(data), **kwargs)

    @property
    def model_name(self) -> str:
        """The model, as other LLMs of LlamaIndex name it; "" for the embedded default."""
        return self.model or ""

    @property
    def writer(self) -> TextWriter:
        """The model that writes, loaded on first use."""
        return self._lazy.get(settings_of(self, self.model))

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex must know of the model: its context and name, and that it chats."""
        writer = self.writer
        return LLMMetadata(
            context_window=writer.context,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self.model or writer.backbone.name,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the model's next turn."""
        writing = self._writing(messages, kwargs)
        return ChatResponse(message=_said("".join(writing)), raw=_raw(writing))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Return the model's next turn while it is written."""
        writing = self._writing(messages, kwargs)

        def responses() -> ChatResponseGen:
            text = ""
            for piece in writing:
                text += piece
                yield ChatResponse(message=_said(text), delta=piece, raw=_raw(writing))

        return responses()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return what the model writes on a prompt; a `formatted` one is continued as it is."""
        writing = self._continued(prompt, kwargs) if formatted else self._writing([_asked(prompt)], kwargs)
        return CompletionResponse(text="".join(writing), raw=_raw(writing))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Return what the model writes on a prompt while it is written."""
        writing = self._continued(prompt, kwargs) if formatted else self._writing([_asked(prompt)], kwargs)

        def responses() -> CompletionResponseGen:
            text = ""
            for piece in writing:
                text += piece
                yield CompletionResponse(text=text, delta=piece, raw=_raw(writing))

        return responses()

    def _writing(self, messages: Sequence[ChatMessage], asked: dict[str, Any]) -> Writing:
        return self.writer.write([_message(message) for message in messages], self._options(asked))

    def _continued(self, prompt: str, asked: dict[str, Any]) -> Writing:
        check_text(prompt, "prompt")
        ids = list(self.writer.backbone.tokenizer(prompt).input_ids)
        return self.writer.write_on(ids, self._options(asked))

    def _options(self, asked: dict[str, Any]) -> WritingOptions:
        names = ("max_tokens", "temperature", "top_p", "seed", "stop")
        unknown = sorted(asked.keys() - {*names})
        if unknown:
            raise InputError(f"{unknown[0]}: {type(self).__name__} has no such argument; there are {', '.join(names)}")
        options: dict[str, Any] = {name: asked.get(name, getattr(self, name)) for name in names}
        stop = options["stop"] or ()
        return WritingOptions(**options | {"stop": (stop,) if isinstance(stop, str) else tuple(stop)})


def _message(message: ChatMessage) -> Message:
    if message.role not in _ROLES:
        raise InputError(f"messages: a {message.role.value} message; the model takes {', '.join(r.value for r in _ROLES)}")
    other = [block for block in message.blocks if not isinstance(block, TextBlock)]
    if other:
        raise InputError(f"messages: a part of type {other[0].block_type!r}; the model reads text alone")
    return Message(_ROLES[message.role], message.content or "")


def _asked(prompt: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=prompt)


def _said(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def _raw(writing: Writing) -> dict[str, Any]:
    return {
        "finish_reason": writing.finish_reason,
        "prompt_tokens": writing.prompt_tokens,
        "completion_tokens": writing.tokens,
    }
