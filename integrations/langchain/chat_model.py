"""A frozen language model as LangChain chat model, on the weights that embed and rerank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from tp_retrieval import Embedder, InputError
from tp_retrieval.answering.chat import ChatRole, Message
from tp_retrieval.answering.writer import TextWriter, Writing, WritingOptions
from tp_retrieval.integrations.loading import LazyWriter, LoadingFields, fields_of, settings_of, with_model

_ROLES: dict[str, ChatRole] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
}

_OF_SERVICES = ("api_key", "max_retries", "streaming", "timeout")
"""Standard arguments of LangChain's chat models that mean nothing to a model in this process; they are ignored."""


class TPChatModel(LoadingFields, BaseChatModel):
    """Chat with a language model, by its own chat template.

    `model` is what `TPEmbeddings(model=)` takes: a hub id, a folder or a GGUF file, loaded with the first message, or a
    model in memory with its `tokenizer`, or an object that holds both. `from_embedder` shares an embedder's weights.
    `temperature` 0 is greedy. Tools and pictures are refused.
    """

    model: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None

    _lazy: LazyWriter = PrivateAttr(default_factory=LazyWriter)

    def __init__(self, **fields: Any) -> None:
        if "stop_sequences" in fields:  # as LangChain calls it, too
            fields["stop"] = fields.pop("stop_sequences")
        fields, embedder = with_model(
            {name: value for name, value in fields.items() if name not in _OF_SERVICES}, "TPChatModel"
        )
        super().__init__(**fields)
        if embedder is not None:
            self._lazy = LazyWriter(embedder)

    @classmethod
    def from_embedder(cls, embedder: Embedder, **fields: Any) -> TPChatModel:
        """Write with the model of an embedder."""
        self = cls(**fields_of(embedder), **fields)
        self._lazy = LazyWriter(embedder)
        return self

    @property
    def model_name(self) -> str | None:
        """The model, as other chat models of LangChain name it."""
        return self.model

    @property
    def writer(self) -> TextWriter:
        """The model that writes, loaded on first use."""
        return self._lazy.get(settings_of(self, self.model))

    @property
    def _llm_type(self) -> str:
        return "tp-retrieval"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop, **kwargs)
        return params | LangSmithParams(
            ls_provider="tp-retrieval", ls_model_name=kwargs.get("model", self.model) or "default"
        )

    @property
    def _identifying_params(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("max_tokens", "temperature", "top_p", "seed", "stop")}
        return {"model": self.model, **options}

    def get_num_tokens(self, text: str) -> int:
        """Return the number of the model's tokens of a text."""
        return len(self.writer.backbone.plain_tokenizer.encode(text).ids)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **asked: Any,
    ) -> ChatResult:
        writing = self._writing(messages, stop, asked)
        message = AIMessage("".join(writing), usage_metadata=_usage(writing), response_metadata=self._metadata(writing))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **asked: Any,
    ) -> Iterator[ChatGenerationChunk]:
        writing = self._writing(messages, stop, asked)
        try:
            for piece in writing:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
        finally:
            writing.close()
        last = AIMessageChunk(
            content="", usage_metadata=_usage(writing), response_metadata=self._metadata(writing), chunk_position="last"
        )
        yield ChatGenerationChunk(message=last)

    def _writing(self, messages: Sequence[BaseMessage], stop: list[str] | None, asked: dict[str, Any]) -> Writing:
        names = ("max_tokens", "temperature", "top_p", "seed")
        unknown = sorted(asked.keys() - {*names, "tools", "tool_choice"})
        if unknown or asked.get("tools"):
            name = unknown[0] if unknown else "tools"
            raise InputError(f"{name}: {type(self).__name__} has no such argument; there are {', '.join(names)}, stop")
        options: dict[str, Any] = {name: asked.get(name, getattr(self, name)) for name in names}
        stops = tuple(stop if stop is not None else self.stop or [])
        return self.writer.write([_message(message) for message in messages], WritingOptions(**options, stop=stops))

    def _metadata(self, writing: Writing) -> dict[str, Any]:
        return {"model_name": self.writer.backbone.name, "finish_reason": writing.finish_reason}


def _message(message: BaseMessage) -> Message:
    """Return a message's role and text; raise `InputError` for another role or for what is no text."""
    role = getattr(message, "role", message.type)
    if role not in _ROLES:
        raise InputError(f"messages: a {role} message; the model takes {', '.join(_ROLES)}")
    if not isinstance(message.content, str):
        kinds = [block.get("type") for block in message.content if not isinstance(block, str)]
        other = [kind for kind in kinds if kind != "text"]
        if other:
            raise InputError(f"messages: a part of type {other[0]!r}; the model reads text alone")
    return Message(_ROLES[role], str(message.text))


def _usage(writing: Writing) -> UsageMetadata:
    read, written = writing.prompt_tokens, writing.tokens
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
