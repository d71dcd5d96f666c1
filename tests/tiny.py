"""Tiny random models of every architecture the package promises, with the embedded model's tokenizer and a BOS token."""

import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing

from tp_retrieval import Recipe
from tp_retrieval.embedding.recipe import View

_SIZES = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_HEAD = {"head_dim": 8}
_WINDOW = {"sliding_window": 12}  # shorter than a row, so that the window bites inside the prefix

CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**_SIZES),
    "mistral": lambda: transformers.MistralConfig(**_SIZES, **_WINDOW),
    "qwen2": lambda: transformers.Qwen2Config(**_SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**_SIZES, **_HEAD),
    "gemma2": lambda: transformers.Gemma2Config(**_SIZES, **_HEAD, **_WINDOW, query_pre_attn_scalar=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_SIZES,
        **_HEAD,
        **_WINDOW,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    ),
    "phi3": lambda: transformers.Phi3Config(**_SIZES),
    "olmo2": lambda: transformers.Olmo2Config(**_SIZES),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**{k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=49152,
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=1024,
        initializer_range=0.25,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
}


KINDS = [pytest.param(kind, marks=[pytest.mark.slow] if kind in ("olmo2", "phi3") else []) for kind in CONFIGS]
"""The architectures as test parameters; two that are Llama's near relatives are slow tests."""


RECIPE = Recipe("Question: {text}", "Passage: {text}", [View(2, "mean")])
"""Reads half of a tiny model's blocks; queries and documents differ."""


def save(kind, folder, tokenizer_folder):
    """Write a random causal language model of this kind with a tokenizer that begins with BOS."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(folder)
