"""A decoder-only language model, loaded only as deep as a recipe reads it."""

from __future__ import annotations

import copy
import inspect
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tp_retrieval.embedding.forward.tokens import plain_tokenizer
from tp_retrieval.embedding.model.device import default_device, resolve_dtype
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.errors import InputError, UnsupportedModelError

PER_BLOCK_FIELDS = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Fields of a configuration that hold one value a block."""

_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A loaded decoder: its blocks, its tokenizer, and the number of blocks of the whole model.

    `lock` lets one forward pass at a time run, so that threads share the memory of one. `whole` is the causal language
    model that the decoder is part of, if it was loaded with one; `source` is where it can be loaded from.
    """

    decoder: PreTrainedModel
    blocks: nn.ModuleList
    tokenizer: PreTrainedTokenizerBase
    n_blocks: int
    name: str
    origin: str | None = None
    revision: str | None = None
    whole: PreTrainedModel | None = None
    source: ModelSource | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        config: Any,
        depth: int,
        *,
        device: str | None,
        dtype: str | torch.dtype,
        whole: bool = False,
    ) -> Backbone:
        """Load the first `depth` blocks of a model, or all and the LM head.

        Raises `UnsupportedModelError` if the model can't be rewired.
        """
        where = torch.device(device or default_device())
        wanted = config if whole else shortened(config, max(depth, 1))
        model = source.weights(wanted, resolve_dtype(dtype, where), head=whole)
        if not source.places_itself:
            model = model.to(where)  # type: ignore[arg-type]
        revision = getattr(config, "_commit_hash", None) or source.revision
        return replace(
            cls.wrap(model, source.tokenizer()),
            n_blocks=n_blocks_of(config),
            name=source.name,
            origin=source.origin,
            revision=revision,
            source=replace(source, revision=revision),
        )

    @classmethod
    def wrap(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Backbone:
        """Return the backbone of a model in memory, whose weights and hooks are left as they are."""
        check_architecture(model.config)
        if model.training:
            raise InputError("the model is in training mode, where dropout makes vectors random; call model.eval()")
        decoder, blocks = _find_blocks(model)
        name = model.config._name_or_path
        whole = None if model.get_output_embeddings() is None else model
        return cls(decoder, blocks, tokenizer, len(blocks), name, name, whole=whole)

    def language_model(self) -> LanguageModel:
        """Return the whole model with its LM head; missing parts are loaded now, once.

        While it loads, the parts that are here already are in memory twice, the second time on the processor. Raises
        `UnsupportedModelError` if there is no head to be had.
        """
        with self.lock:
            return self._language_model

    @cached_property
    def _language_model(self) -> LanguageModel:
        if self.whole is not None:
            return LanguageModel(self, self.whole)
        if self.source is None:
            raise UnsupportedModelError(f"{self.name} was given without its LM head; wrap the causal language model")
        model = self.source.weights(self.source.config(), self.dtype, head=True)
        decoder, blocks = _find_blocks(model)
        for i, block in enumerate(self.blocks):
            blocks[i] = block
        decoder.set_input_embeddings(self.decoder.get_input_embeddings())
        model.tie_weights()
        if not self.source.places_itself:
            model = model.to(self.device)  # type: ignore[arg-type]
        return LanguageModel(replace(self, decoder=decoder, blocks=blocks, whole=model), model)

    @property
    def width(self) -> int:
        """Hidden size."""
        return int(self.decoder.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where batches go."""
        return next(self.decoder.get_input_embeddings().parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type the hidden states are computed in."""
        return self.decoder.dtype

    @property
    def max_positions(self) -> int | None:
        """Longest sequence that the model was built for, if its configuration has it."""
        return getattr(self.decoder.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def plain_tokenizer(self) -> Tokenizer:
        """The tokenizer that reads special tokens as text."""
        return plain_tokenizer(self.tokenizer)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A whole causal language model: a backbone with every block, and the head that turns its states into logits.

    Raises `UnsupportedModelError` if the model treats its logits in a way of its own.
    """

    backbone: Backbone
    model: PreTrainedModel

    def __post_init__(self) -> None:
        ids = torch.tensor([[1, 2]], device=self.backbone.device)
        with self.backbone.lock, torch.inference_mode():
            want = self.model(ids, use_cache=False).logits[0].float()
            got = self.logits(self.backbone.decoder(ids, use_cache=False).last_hidden_state[0])
        if not torch.allclose(got, want, rtol=1e-2, atol=1e-2):
            kind = self.model.config.model_type
            raise UnsupportedModelError(f"{kind} changes its logits in an unknown way")

    @property
    def vocabulary(self) -> int:
        """Number of logits a position."""
        return int(self.model.config.get_text_config().vocab_size)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits `(n, vocabulary) float32` of final states `(n, width)`."""
        logits: torch.Tensor = self.model.get_output_embeddings()(states).float()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


def n_blocks_of(config: Any) -> int:
    """Return the number of blocks of a configuration."""
    check_architecture(config)
    return int(config.get_text_config().num_hidden_layers)


def shortened(config: Any, depth: int) -> Any:
    """Return a copy of a configuration that ends after `depth` blocks."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    total = text.num_hidden_layers
    if depth < total:
        for name in PER_BLOCK_FIELDS:
            values = getattr(text, name, None)
            if isinstance(values, list) and len(values) == total:
                setattr(text, name, values[:depth])
        text.num_hidden_layers = depth
    return config


def check_architecture(config: Any) -> None:
    """Raise `UnsupportedModelError` with the reason if a configuration is not of a decoder with attention only."""
    kind = getattr(config, "model_type", type(config).__name__)
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{kind} is an encoder-decoder; Token Prepending needs a decoder-only model")
    if not hasattr(text, "num_hidden_layers") or not hasattr(text, "hidden_size"):
        raise UnsupportedModelError(f"{kind} has no stack of transformer blocks")
    other = set(getattr(text, "layer_types", None) or []) - _ATTENTION_KINDS
    if other:
        raise UnsupportedModelError(f"{kind} has {', '.join(sorted(other))} blocks; only attention can be cached by prefix")
    if getattr(text, "hidden_size_per_layer_input", 0):
        raise UnsupportedModelError(f"{kind} feeds token ids into every block; a placeholder has none")


def _find_blocks(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList]:
    """Return the one list of blocks and the innermost model around it."""
    kind, count = model.config.model_type, model.config.get_text_config().num_hidden_layers
    modules = dict(model.named_modules())
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(lists) != 1:
        raise UnsupportedModelError(f"{kind} has {len(lists)} lists of {count} blocks; one stack of them is needed")
    parents = [lists[0].rsplit(".", cut)[0] for cut in range(1, lists[0].count(".") + 1)] + [""]
    owners = (modules[name] for name in parents)
    decoder = next(owner for owner in owners if isinstance(owner, PreTrainedModel))
    missing = {"inputs_embeds", "past_key_values", "use_cache"} - set(inspect.signature(decoder.forward).parameters)
    if missing:
        raise UnsupportedModelError(f"{kind} takes no {' and no '.join(sorted(missing))}; it is no decoder")
    return decoder, cast("nn.ModuleList", modules[lists[0]])
