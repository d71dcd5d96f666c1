"""The language model inside the objects by which frameworks hold one in memory.

held = held_by(HuggingFacePipeline(pipeline=...))
held.model, held.tokenizer
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tp_retrieval.errors import InputError

_INSIDE = ("llm", "pipeline")  # of LangChain's ChatHuggingFace and HuggingFacePipeline
_NAMES = (("model", "tokenizer"), ("_model", "_tokenizer"))  # of transformers' pipelines and LlamaIndex's HuggingFaceLLM


class Held(NamedTuple):
    """A model, and the tokenizer that is held with it, if one is."""

    model: Any
    tokenizer: PreTrainedTokenizerBase | None


def held_by(holder: object, depth: int = 3) -> Held:
    """Return the model in an object: itself, or that of a pipeline or of a framework's wrapper.

    Raises `InputError` if there is none.
    """
    if isinstance(holder, nn.Module):
        return Held(holder, None)
    for name in _INSIDE:
        inside = getattr(holder, name, None)
        if inside is not None and not isinstance(inside, str) and depth:
            return held_by(inside, depth - 1)
    for model, tokenizer in _NAMES:
        if isinstance(getattr(holder, model, None), nn.Module):
            return Held(getattr(holder, model), getattr(holder, tokenizer, None))
    raise InputError(f"model: expected a model of transformers, or an object that holds one, got {type(holder).__name__}")


def unwrapped(model: Any) -> PreTrainedModel:
    """Return the model inside wrappers of torch.compile and of PEFT; raise `InputError` if there is none."""
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "get_base_model", lambda: None)()
        if inner is None:
            raise InputError(f"model: expected a model of transformers, got {type(model).__name__}")
        model = inner
    return model
