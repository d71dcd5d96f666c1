"""Fingerprints: digests of a model's tokenizer, configuration and weights, equal where hidden states are.

Format 2 is written today. Format 1 is only compared, so that what carries it still opens: it sampled the embeddings, too,
and read a short list of settings, so that models whose vectors differ could share one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import xxhash

from tp_retrieval.embedding.model.backbone import PER_BLOCK_FIELDS, Backbone
from tp_retrieval.types import FORMAT_2

_SAMPLE = 1024
_CHUNK = 2**24  # values that are rounded at once, so that a large embedding needs no second copy of itself
_PROBE = "The quick brown fox, 12345.67 km away: naïve Straße 東京 😀\n\tdef f(x): return 'x'"
_FORMAT_1_SETTINGS = (
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
_IGNORED = {
    # differs with the way a model was loaded
    *("_name_or_path", "architectures", "auto_map", "dtype", "num_hidden_layers", "torch_dtype", "transformers_version"),
    *("attn_implementation", "_attn_implementation", "quantization_config", "use_cache"),
    # read in training, or by what comes after the hidden states
    *("attention_dropout", "attn_pdrop", "embd_pdrop", "hidden_dropout", "resid_pdrop", "classifier_dropout"),
    *("initializer_range", "final_logit_softcapping", "tie_word_embeddings", "pretraining_tp"),
    *("id2label", "label2id", "problem_type", "return_dict", "output_attentions", "output_hidden_states"),
    # the tokenizer's, whose token ids go in by the probe
    *("bos_token_id", "eos_token_id", "pad_token_id"),
    # marks that exporters leave
    *("is_llama_config", "transformers.js_config"),
}


def format_2(backbone: Backbone, depth: int) -> str:
    """Return the digest of everything that decides the hidden states after `depth` blocks.

    Every embedding value goes in, of each matrix of a block about a thousand values and at least one a row, and every
    buffer that is saved with the weights; all rounded to bfloat16, so that a model has one fingerprint in float32 and in
    bfloat16. The configuration goes in but for what does not decide a state; the tokenizer by what it makes of a probe.
    """
    around, *blocks = _parameters(backbone, depth)
    buffers = [list(map(_whole_digest, part)) for part in _buffers(backbone, depth)]
    weights = [list(map(_whole_digest, around)), *(list(map(_row_digest, block)) for block in blocks), buffers]
    content = [_probe(backbone), _configuration(backbone, depth), weights]
    return FORMAT_2 + _digest_of(content)


def format_1(backbone: Backbone, depth: int) -> str:
    """Return the digest that earlier versions wrote. It must never change."""
    weights = [sorted(map(_sample_digest, part)) for part in _parameters(backbone, depth)]
    text = backbone.decoder.config.get_text_config()
    settings = {name: getattr(text, name, None) for name in _FORMAT_1_SETTINGS}
    settings["layer_types"] = (getattr(text, "layer_types", None) or [])[:depth]
    return _digest_of([_probe(backbone), settings, weights])


def _parameters(backbone: Backbone, depth: int) -> list[list[torch.Tensor]]:
    """Return the tensors around the blocks (embeddings, the final norm), then those of each block."""
    in_blocks = {id(tensor) for tensor in backbone.blocks.parameters()}
    around = (tensor for tensor in backbone.decoder.parameters() if id(tensor) not in in_blocks)
    return [list(map(_readable, part)) for part in (around, *(block.parameters() for block in backbone.blocks[:depth]))]


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of numbers: what torchao quantised is a wrapper that knows few operations."""
    return tensor.dequantize() if hasattr(tensor, "__tensor_flatten__") else tensor


def _buffers(backbone: Backbone, depth: int) -> list[list[torch.Tensor]]:
    """Return the saved buffers around the blocks, then those of each block, such as the biases of a router."""
    in_blocks = {id(buffer) for buffer in backbone.blocks.buffers()}
    around, *blocks = (
        [buffer for name, buffer in module.named_buffers() if name in saved]
        for module in (backbone.decoder, *backbone.blocks[:depth])
        for saved in [set(module.state_dict())]
    )
    return [[buffer for buffer in around if id(buffer) not in in_blocks], *blocks]


def _probe(backbone: Backbone) -> Any:
    return backbone.tokenizer(_PROBE).input_ids


def _digest_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


# -- the configuration


def _configuration(backbone: Backbone, depth: int) -> dict[str, Any]:
    """Return the settings that differ from the defaults of the configuration's class, with per-block lists cut to `depth`.

    Defaults are left out because a later version of transformers adds fields, which would change every fingerprint.
    """
    text = backbone.decoder.config.get_text_config()
    ignored = {text.attribute_map.get(name, name) for name in _IGNORED}
    ours = text.to_dict()
    usual = _defaults(text)
    settings: dict[str, Any] = {"model_type": text.model_type}
    for name in sorted(ours.keys() - ignored):
        value, default = (_plain(_cut(name, values.get(name), backbone.n_blocks, depth)) for values in (ours, usual))
        if value != default:
            settings[name] = value
    return settings


def _defaults(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration made without arguments, none for a class that needs arguments."""
    try:
        defaults: dict[str, Any] = type(config)().to_dict()
    except (TypeError, ValueError):
        return {}
    return defaults


def _cut(name: str, value: Any, n_blocks: int, depth: int) -> Any:
    per_block = isinstance(value, list) and (name in PER_BLOCK_FIELDS or len(value) == n_blocks)
    return value[:depth] if per_block else value


def _plain(value: Any) -> Any:
    """Return a value with equal numbers written equally: 1 is 1.0, and six digits are what a GGUF file's float32 holds.

    What is ignored in a configuration is left out of the parts that it holds, too.
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() else f"{value:.6g}"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _IGNORED}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


# -- the weights


def _whole_digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().flatten()
    return _tensor_digest(tensor, (flat[begin : begin + _CHUNK] for begin in range(0, flat.numel(), _CHUNK)))


def _row_digest(tensor: torch.Tensor) -> str:
    """Return a digest of values less than a row apart, so that no row is left out."""
    flat = tensor.detach().flatten()
    stride = min(flat.numel() // _SAMPLE, tensor.shape[-1] - 1) if tensor.ndim > 1 else 1
    return _tensor_digest(tensor, [flat[:: max(stride, 1)]])


def _tensor_digest(tensor: torch.Tensor, parts: Iterable[torch.Tensor]) -> str:
    digest = xxhash.xxh3_128(str(tuple(tensor.shape)).encode())  # a SHA-256 would take most of the time
    for part in parts if tensor.device.type != "meta" else ():  # of offloaded weights only the shape is available
        digest.update(_rounded(part).cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _sample_digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(str(tuple(tensor.shape)).encode())
    if tensor.device.type != "meta":
        flat = tensor.detach().flatten()
        sample = flat[:: max(flat.numel() // _SAMPLE, 1)]
        digest.update(_rounded(sample).cpu().numpy().tobytes())
    return digest.hexdigest()


def _rounded(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.bfloat16).contiguous().view(torch.int16) if values.is_floating_point() else values
