"""A decoder-only language model, loaded only as deep as a recipe reads it."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tp_retrieval.embedding.source import ModelSource
from tp_retrieval.errors import InputError, UnsupportedModelError

_PER_BLOCK_FIELDS = ("layer_types", "mlp_layer_types", "no_rope_layers")
_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
_SAMPLE = 1024
_SETTINGS = (  # what decides a hidden state and is no weight
    "rope_parameters",
    "sliding_window",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
)
_TOKENIZER_PROBE = "The quick brown fox, 12345.67 km away: naïve Straße 東京 😀\n\tdef f(x): return 'x'"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A loaded decoder: its blocks, its tokenizer, and how many blocks the whole model has.

    `lock` lets one forward pass at a time run, so that threads share the memory of one.
    """

    decoder: PreTrainedModel
    blocks: nn.ModuleList
    tokenizer: PreTrainedTokenizerBase
    n_blocks: int
    name: str
    origin: str | None = None
    revision: str | None = None
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
    ) -> Backbone:
        """Load the first `depth` blocks of a model; raise `UnsupportedModelError` if it can't be rewired."""
        where = torch.device(device or default_device())
        shallow = shortened(config, max(depth, 1))
        model = source.weights(shallow, resolve_dtype(dtype, where))
        if "device_map" not in source.model_kwargs and "quantization_config" not in source.model_kwargs:
            model = model.to(where)  # type: ignore[arg-type]
        revision = getattr(config, "_commit_hash", None) or source.revision
        wrapped = cls.wrap(model, source.tokenizer())
        return replace(wrapped, n_blocks=n_blocks_of(config), name=source.name, origin=source.origin, revision=revision)

    @classmethod
    def wrap(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Backbone:
        """Take a model that is already in memory; its weights and hooks are left as they are."""
        check_architecture(model.config)
        if model.training:
            raise InputError("the model is in training mode, where dropout makes vectors random; call model.eval()")
        decoder, blocks = _find_blocks(model)
        name = model.config._name_or_path
        return cls(decoder, blocks, tokenizer, len(blocks), name, name)

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
        """Longest sequence the model was built for, if it says so."""
        return getattr(self.decoder.config.get_text_config(), "max_position_embeddings", None)

    def fingerprint(self, depth: int) -> str:
        """Return a digest of the tokenizer, the settings and the weights that the first `depth` blocks use.

        About a thousand evenly spaced values of every tensor go in, rounded to bfloat16 and unnamed, so that a model
        has one fingerprint whichever floating-point type it was loaded in and however its tensors are called.
        Another training run changes nearly every value. The tokenizer goes in by what it makes of a probe.
        """
        in_blocks = {id(tensor) for tensor in self.blocks.parameters()}
        around = [tensor for tensor in self.decoder.parameters() if id(tensor) not in in_blocks]
        parts = [around, *(list(block.parameters()) for block in self.blocks[:depth])]
        weights = [sorted(_digest(tensor) for tensor in part) for part in parts]
        text = self.decoder.config.get_text_config()
        settings = {name: getattr(text, name, None) for name in _SETTINGS}
        settings["layer_types"] = (getattr(text, "layer_types", None) or [])[:depth]
        probe = self.tokenizer(_TOKENIZER_PROBE).input_ids
        content = json.dumps([probe, settings, weights], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(str(tuple(tensor.shape)).encode())
    if tensor.device.type != "meta":  # offloaded weights are known by their shape
        flat = tensor.detach().flatten()
        sample = flat[:: max(flat.numel() // _SAMPLE, 1)]
        if sample.is_floating_point():
            sample = sample.to(torch.bfloat16).view(torch.int16)
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()


def n_blocks_of(config: Any) -> int:
    """Return how many blocks a configuration describes."""
    check_architecture(config)
    return int(config.get_text_config().num_hidden_layers)


def shortened(config: Any, depth: int) -> Any:
    """Return a copy of a configuration that ends after `depth` blocks."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    total = text.num_hidden_layers
    if depth < total:
        for name in _PER_BLOCK_FIELDS:
            values = getattr(text, name, None)
            if isinstance(values, list) and len(values) == total:
                setattr(text, name, values[:depth])
        text.num_hidden_layers = depth
    return config


def check_architecture(config: Any) -> None:
    """Raise `UnsupportedModelError` with the reason if a configuration is of no attention-only decoder."""
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


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the torch type of a name; "auto" is bfloat16 where it is the faster one, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if _bfloat16_pays(device.type) else torch.float32
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise InputError(f"dtype: {dtype!r} must be auto, float32, bfloat16 or float16")
    return named


def default_device() -> str:
    """Return cuda, mps or cpu, the first that is there."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def _bfloat16_pays(device: str) -> bool:
    """Tell whether bfloat16 products are faster here; on processors this is measured, once, in some milliseconds.

    A processor's flags do not tell: AMX multiplies bfloat16 several times faster than float32, while AVX512_BF16
    without AMX was measured at half of float32's rate.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    operands = [torch.ones(512, 512), torch.ones(512, 512, dtype=torch.bfloat16)]
    times: list[list[float]] = [[], []]
    for _ in range(7):
        for matrix, spent in zip(operands, times, strict=True):
            begin = time.perf_counter()
            torch.mm(matrix, matrix)
            spent.append(time.perf_counter() - begin)
    return min(times[1]) < 0.8 * min(times[0])


def _find_blocks(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList]:
    """Return the one list of blocks and the innermost model around it."""
    kind, count = model.config.model_type, model.config.get_text_config().num_hidden_layers
    modules = dict(model.named_modules())
    found = [name for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(found) != 1:
        raise UnsupportedModelError(f"{kind} has {len(found)} lists of {count} blocks; one stack of them is needed")
    parents = [found[0].rsplit(".", cut)[0] for cut in range(1, found[0].count(".") + 1)] + [""]
    owners = (modules[name] for name in parents)
    decoder = next(owner for owner in owners if isinstance(owner, PreTrainedModel))
    missing = {"inputs_embeds", "past_key_values", "use_cache"} - set(inspect.signature(decoder.forward).parameters)
    if missing:
        raise UnsupportedModelError(f"{kind} takes no {' and no '.join(sorted(missing))}; it is no decoder")
    return decoder, cast("nn.ModuleList", modules[found[0]])
