"""A decoder-only language model, loaded only as deep as a recipe reads it."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from tp_retrieval.embedding.forward.tokens import plain_tokenizer
from tp_retrieval.embedding.model.device import free_memory, is_out_of_memory, resolve_device, resolve_dtype
from tp_retrieval.embedding.model.in_memory import unwrapped
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.errors import InputError, ModelNotFoundError, OutOfMemoryError, UnsupportedModelError

PER_BLOCK_FIELDS = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Fields of a configuration that hold one value a block."""

_LOCKS: MutableMapping[nn.Module, threading.RLock] = WeakKeyDictionary()
"""One lock a decoder, however many backbones share it."""

_PLAIN: MutableMapping[PreTrainedTokenizerBase, tuple[int, Tokenizer]] = WeakKeyDictionary()
"""The plain copy of each tokenizer, which takes tens of megabytes, and how many tokens the tokenizer had then."""

_KNOWS_ITS_DEPTH = {"minicpm3", "gpt_neox_japanese", "xlstm"}
"""Kinds whose first blocks depend on how many blocks there are, by a scale or by what the last one is."""

_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of blocks whose past is keys and values, each of one token."""


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
        dtype: str | torch.dtype,
        whole: bool = False,
    ) -> Backbone:
        """Load the first `depth` blocks of a model, or all and the LM head.

        Raises `UnsupportedModelError` if the model can't be rewired, `OutOfMemoryError` if it is larger than the memory.
        """
        where = resolve_device(source.device)
        wanted = shortened(config, max(depth, 1)) if not whole and _can_be_cut(config) else config
        of_type = resolve_dtype(dtype, where)
        model = _loaded(source, config, wanted, of_type, where, whole)
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
        """Return the backbone of a model in memory, whose weights and hooks are left as they are.

        A compiled model, or one with adapters of PEFT, is read inside its wrapper; adapters stay in effect. Raises
        `InputError` for a model in training mode or without weights, `UnsupportedModelError` for another than a decoder.
        """
        model = unwrapped(model)
        check_architecture(model.config)
        if model.training:
            raise InputError("the model is in training mode, where dropout makes vectors random; call model.eval()")
        if not hasattr(model, "_hf_hook") and any(weights.is_meta for weights in model.parameters()):
            raise InputError("the model's weights are on the meta device, where there are none; load them first")
        decoder, blocks = _find_blocks(model)
        name = model.config._name_or_path or f"{model.config.model_type} without a name"
        whole = None if model.get_output_embeddings() is None else model
        lock = _LOCKS.setdefault(decoder, threading.RLock())
        return cls(decoder, blocks, tokenizer, len(blocks), name, name, whole=whole, lock=lock)

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
        model = self.source.weights(self.source.config(), self.dtype, device=self.device, head=True)
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
    def attention(self) -> str:
        """The implementation of attention, such as sdpa."""
        return str(self.decoder.config._attn_implementation)

    @property
    def has_attention_only(self) -> bool:
        """Whether all that a block knows of earlier tokens is a key and a value of each."""
        return has_attention_only(self.decoder.config) and "past_key_values" in self.parameters

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of what the decoder's forward pass takes."""
        return frozenset(inspect.signature(self.decoder.forward).parameters)

    @property
    def streams_first(self) -> bool:
        """Whether states of blocks are `(streams, B, T, H)`, as in Gemma 3n."""
        return hasattr(self.decoder.config.get_text_config(), "altup_num_inputs")

    def merged(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the states of a block `(B, T, H)`: of several streams the one that is read on, or their mean."""
        if hidden.dim() == 3:
            return hidden
        if self.streams_first:
            active: torch.Tensor = hidden[self.decoder.config.get_text_config().altup_active_idx]
            return active
        return hidden.mean(dim=2)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence that the model was built for, if its configuration has it."""
        return getattr(self.decoder.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def plain_tokenizer(self) -> Tokenizer:
        """The tokenizer that reads special tokens as text; a copy, which backbones of one tokenizer share."""
        size, plain = _PLAIN.get(self.tokenizer, (0, None))
        if plain is None or size != len(self.tokenizer):  # tokens were added since
            plain = plain_tokenizer(self.tokenizer)
            _PLAIN[self.tokenizer] = (len(self.tokenizer), plain)
        return plain


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A whole causal language model: a backbone with every block, and the head that turns its states into logits.

    Raises `UnsupportedModelError` if the model treats its logits in another way than by a constant factor and a cap.
    """

    backbone: Backbone
    model: PreTrainedModel

    def __post_init__(self) -> None:
        if self.model.config.is_encoder_decoder:
            raise UnsupportedModelError(f"{self.model.config.model_type} is an encoder-decoder")
        if not torch.allclose(self._capped(self._example[0] * self._scale), self._example[1], rtol=1e-2, atol=1e-2):
            raise UnsupportedModelError(f"{self.model.config.model_type} changes its logits in an unknown way")

    @cached_property
    def _example(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head gives for two tokens, and the model's logits of them, `(2, vocabulary) float32`."""
        ids = torch.tensor([[1, 2]], device=self.backbone.device)
        with self.backbone.lock, torch.inference_mode():
            want = self.model(ids, use_cache=False).logits[0].float()
            states = self.backbone.decoder(ids, use_cache=False).last_hidden_state[0]
            return self.model.get_output_embeddings()(states).float(), want

    @cached_property
    def _scale(self) -> float:
        """The factor by which the model multiplies what its head gives, as Granite and Cohere do; by least squares."""
        head, want = self._example
        if torch.allclose(self._capped(head), want, rtol=1e-3, atol=1e-3):
            return 1.0
        if self._cap is not None:
            want = self._cap * torch.atanh((want / self._cap).clamp(-0.999, 0.999))
        return float((head * want).sum() / (head * head).sum().clamp(min=1e-30))

    @property
    def _cap(self) -> float | None:
        cap: float | None = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return cap

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    @property
    def vocabulary(self) -> int:
        """Number of logits a position."""
        return int(self.model.config.get_text_config().vocab_size)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits `(n, vocabulary) float32` of final states `(n, width)`."""
        return self._capped(self.model.get_output_embeddings()(states).float() * self._scale)


def _loaded(
    source: ModelSource, config: Any, part: Any, dtype: torch.dtype, device: torch.device, head: bool
) -> PreTrainedModel:
    """Load the weights of a part of a configuration; raise `OutOfMemoryError` with the remedies if there are too many."""
    needed = 0 if source.places_itself else _bytes_of(part, dtype)
    if needed > free_memory(device):
        raise _too_large(source, dtype, device, needed)
    try:
        try:
            model = source.weights(part, dtype, device=device, head=head)
        except ModelNotFoundError:
            if head:
                raise
            model = source.weights(config, dtype, device=device, head=True)  # some can't be loaded without their head
        return model if source.places_itself else model.to(device)  # type: ignore[arg-type]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(source, dtype, device, needed) from error


def _bytes_of(config: Any, dtype: torch.dtype) -> int:
    """Return the size of a model's weights, 0 for one that can't be made: it is loaded otherwise, or fails there."""
    with torch.device("meta"), suppress(Exception):
        return dtype.itemsize * int(AutoModel.from_config(config, dtype=dtype).num_parameters())
    return 0


def _too_large(source: ModelSource, dtype: torch.dtype, device: torch.device, needed: int) -> OutOfMemoryError:
    size = f" takes {needed / 1e9:.1f} GB as {str(dtype).removeprefix('torch.')} and" if needed else ""
    free = free_memory(device) / 1e9
    return OutOfMemoryError(
        f"the model {source.name!r}{size} does not fit in the {free:.1f} GB that are free on {device}: "
        "load it in bfloat16 or quantised (--load-in 4bit), with a recipe that reads fewer blocks, or over several devices "
        "(--model-arg device_map=auto)"
    )


def n_blocks_of(config: Any) -> int:
    """Return the number of blocks of a configuration; some count the layers inside a block, too."""
    check_architecture(config)
    text = config.get_text_config()
    return int(min(getattr(text, "num_layers", None) or text.num_hidden_layers, text.num_hidden_layers))


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


def has_attention_only(config: Any) -> bool:
    """Return whether every block is of attention, and reads its input and nothing else."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    return kinds <= _ATTENTION_KINDS and n_blocks_of(config) == text.num_hidden_layers and not reads_ids(config)


def _can_be_cut(config: Any) -> bool:
    """Return whether the first blocks of a model can be loaded alone."""
    return has_attention_only(config) and config.get_text_config().model_type not in _KNOWS_ITS_DEPTH


def reads_ids(config: Any) -> bool:
    """Return whether blocks read token ids beside their input: embeddings of their own, or to choose experts."""
    text = config.get_text_config()
    return bool(getattr(text, "hidden_size_per_layer_input", 0) or getattr(text, "num_hash_layers", 0))


def check_architecture(config: Any) -> None:
    """Raise `UnsupportedModelError` with the reason if a configuration is not of a decoder."""
    kind = getattr(config, "model_type", type(config).__name__)
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{kind} is an encoder-decoder; Token Prepending needs a decoder-only model")
    if not hasattr(text, "num_hidden_layers") or not hasattr(text, "hidden_size"):
        raise UnsupportedModelError(f"{kind} has no stack of transformer blocks")


def _find_blocks(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList]:
    """Return the one list of blocks and the innermost model around it."""
    kind, count = model.config.model_type, n_blocks_of(model.config)
    modules = dict(model.named_modules())
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module) == count]
    owners = {name: _owner(name, modules) for name in lists}
    if len(lists) > 1:  # one may be of the part that reads images
        text = type(model.config.get_text_config())
        lists = [name for name in lists if type(owners[name].config) is text]
    if len(lists) != 1:
        raise UnsupportedModelError(f"{kind} has {len(lists)} lists of {count} blocks; one stack of them is needed")
    return owners[lists[0]], cast("nn.ModuleList", modules[lists[0]])


def _owner(name: str, modules: Mapping[str, nn.Module]) -> PreTrainedModel:
    """Return the innermost model around a module."""
    parents = [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)] + [""]
    return next(module for module in map(modules.__getitem__, parents) if isinstance(module, PreTrainedModel))
