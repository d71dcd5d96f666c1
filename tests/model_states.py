"""Vectors the slow way: states of the model itself, read by hooks on its blocks, one text at a time, without a cache."""

from dataclasses import replace

import numpy as np
import torch

from tp_retrieval.embedding.forward.readout import read
from tp_retrieval.embedding.forward.tokens import collate


def states_of(backbone, row, prepend=None):
    """Return the states before every block, after the last one and after the final norm, each `(1, T, H)`."""
    ids, states = torch.tensor([row.ids]), []

    def before(number):
        def hook(module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            states.append(backbone.merged(hidden).clone())
            if prepend is None or not prepend.start <= number < prepend.stop:
                return None
            hidden = hidden.clone()
            tokens = hidden.movedim(0, 2) if backbone.streams_first else hidden
            tokens[0, row.slot] = tokens[0, -1]
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def after(module, args, output):
        states.append(backbone.merged(output[0] if isinstance(output, (tuple, list)) else output).clone())

    def clear(module, args, embeds):
        if row.slot is not None:
            embeds[:, row.slot] = 0.0

    blocks = backbone.blocks
    handles = [block.register_forward_pre_hook(before(i), with_kwargs=True) for i, block in enumerate(blocks)]
    handles += [blocks[-1].register_forward_hook(after)]
    handles += [backbone.decoder.get_input_embeddings().register_forward_hook(clear)]
    with torch.inference_mode():
        normed = backbone.decoder(ids, use_cache=False).last_hidden_state
    for handle in handles:
        handle.remove()
    return [*states, normed]


def expected(embedder, text):
    """Return the vector of a text, slowly."""
    tokenizer = embedder._tokenizers[embedder.recipe.document[0]]
    (row,) = tokenizer.rows([text])
    row = replace(row, prefix=0)
    states = states_of(embedder.backbone, row, embedder.recipe.prepend)
    batch, exits = collate([row]), embedder.recipe.exits(embedder.backbone.n_blocks)
    views = zip(exits, embedder.recipe.views, strict=True)
    parts = [read(states[-1 if exit_ is None else exit_], batch, view.readout) for exit_, view in views]
    return torch.cat(parts, dim=1)[0].numpy()


def assert_close(got, want):
    scale = np.abs(want).max(axis=-1, keepdims=True)
    assert np.abs((got - want) / scale).max() < 2e-4
