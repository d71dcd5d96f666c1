"""The model stays as it was: its weights, the perplexity of texts and its greedy text, before and after prepending.

    python -m benchmarks.open_questions.untouched --data DIR --model A --model B

The same weights embed with prepending between two measurements. Nothing is within a tolerance: sums of log-likelihoods are
compared as numbers, tokens and weights one by one.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from benchmarks.open_questions.common import Figures, finish, known_prompts, markdown, parser, sts_set
from tp_retrieval import Embedder, Recipe
from tp_retrieval.embedding.recipe import View

_PROMPTS = ("The capital of France is", "A man is playing a guitar", "To make bread, you need", "In the year 1969,")


def measure(loaded: Embedder, texts: list[str], tokens: int = 40) -> Figures:
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


def tables(figures: Figures) -> dict[str, str]:
    """Return what was compared, and one of the texts."""
    lines = []
    for model, found in figures["models"].items():
        same = {True: "equal", False: "**differs**"}
        before, after = found["perplexity"]
        lines += [
            (model, f"{found['tensors']} tensors of weights", "", "", same[found["equal"]["weights"]]),
            (model, "where they lie in memory", "", "", same[found["equal"]["memory"]]),
            (model, f"perplexity of {found['texts']} texts", before, after, same[found["equal"]["sums"]]),
            (model, "greedy text", *(texts[0] for texts in found["generated"]), same[found["equal"]["tokens"]]),
            (model, "hooks left on blocks", "", found["hooks left"], ""),
        ]
    rows = [[str(cell).replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines]
    return {"before and after": markdown(("model", "what", "before", "after prepending", "compared"), rows)}


def main() -> None:
    """Measure and print."""
    given = parser(__doc__).parse_args()
    texts = list(sts_set(given.data, "STSB-dev", given.items or 200).documents)
    finish(given, lambda loaded: measure(loaded, texts), tables, whole=True)


if __name__ == "__main__":
    main()
