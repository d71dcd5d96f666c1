"""The model stays as it was: its weights, the perplexity of texts and its greedy text, before and after prepending.

The same weights embed with prepending between two measurements. Nothing is within a tolerance: sums of log-likelihoods are
compared as numbers, tokens and weights one by one.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import numpy as np
import torch

from benchmarks.open_questions.common import Figures, add_items, known_prompts, load_whole, named, sts_set
from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import View

_PROMPTS = ("The capital of France is", "A man is playing a guitar", "To make bread, you need", "In the year 1969,")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    add_items(parser)


def measure(options: argparse.Namespace) -> Figures:
    """Return the figures of a model."""
    loaded = load_whole(options, head=True)
    return named(loaded, before_and_after(loaded, list(sts_set(options.data, "STSB-dev", options.items or 200).documents)))


def before_and_after(loaded: Embedder, texts: list[str], tokens: int = 40) -> Figures:
    """Return what a model says and weighs before and after it has embedded all texts with every kind of prepending."""
    before = _measured(loaded, texts, tokens)
    prompt = known_prompts()["prompteol"]
    vectors = {}
    for kind in ("tp", "tp-mean", "htp", "bidirectional"):
        (template,), prepend = prompt.arm(kind, 1, 3)
        rewired = loaded.with_recipe(Recipe(template, template, [View(None)], prepend))
        vectors[kind] = rewired.embed_documents(texts)
    plain = loaded.with_recipe(Recipe(prompt.templates[0], prompt.templates[0], [View(None)])).embed_documents(texts)
    after = _measured(loaded, texts, tokens)
    blocks = loaded.backbone.blocks
    return {
        "texts": len(texts),
        "device": str(loaded.backbone.device),
        "dtype": loaded.provenance.dtype,
        "tensors": before["tensors"],
        "perplexity": [before["perplexity"], after["perplexity"]],
        "generated": [before["generated"], after["generated"]],
        "equal": {name: before[name] == after[name] for name in ("weights", "memory", "sums", "tokens")},
        "hooks left": sum(len(block._forward_pre_hooks) + len(block._forward_hooks) for block in blocks),
        "kinds that changed vectors": [kind for kind, found in vectors.items() if not np.array_equal(found, plain)],
    }


@torch.inference_mode()
def _measured(loaded: Embedder, texts: list[str], tokens: int) -> dict[str, Any]:
    language = loaded.backbone.language_model()
    model: Any = language.model  # whose methods mypy takes for tensors
    tokenizer = loaded.backbone.tokenizer
    digest = hashlib.sha256()
    weights = sorted(model.state_dict(keep_vars=True).items())
    for name, tensor in weights:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    sums, count = [], 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids.to(loaded.backbone.device)
        if ids.shape[1] < 2:
            continue
        logits = model(ids, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
        sums.append(float(logits.gather(1, ids[0, 1:, None]).sum()))
        count += ids.shape[1] - 1
    generated = []
    for prompt in _PROMPTS:
        given = tokenizer(prompt, return_tensors="pt").to(loaded.backbone.device)
        given.pop("token_type_ids", None)
        generated.append(model.generate(**given, max_new_tokens=tokens, do_sample=False, pad_token_id=0)[0].tolist())
    return {
        "tensors": len(weights),
        "weights": digest.hexdigest(),
        "memory": [tensor.data_ptr() for _, tensor in weights],
        "sums": sums,
        "perplexity": float(np.exp(-sum(sums) / count)),
        "tokens": generated,
        "generated": [tokenizer.decode(ids, skip_special_tokens=True) for ids in generated],
    }
