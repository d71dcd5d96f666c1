"""One forward pass: the cached prefix, the blocks up to the deepest exit, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from tp_retrieval.embedding.forward.bidirectional import bidirectional
from tp_retrieval.embedding.forward.prepending import PreHook, pre_hooks, prepending
from tp_retrieval.embedding.forward.tokens import TokenBatch
from tp_retrieval.embedding.model.backbone import Backbone
from tp_retrieval.embedding.recipe import Prepend
from tp_retrieval.errors import UnsupportedModelError

logger = logging.getLogger(__name__)

Exit = int | None
"""Blocks that ran before a hidden state is read; None is all of them and the final norm."""


@dataclass(frozen=True)
class Prefix:
    """The cached states of a template's first tokens: keys and values `(1, heads, P, D)` a block, and for `tp-mean` the sum
    `(H,)` of every block's inputs. Nothing after the prefix is seen by it, so it holds for every text.
    """

    length: int
    keys_values: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    sums: Mapping[int, torch.Tensor] | None = None

    def cache(self) -> Cache | None:
        """Return a cache that puts the prefix before any batch, None for an empty prefix."""
        return Cache(layers=[_SharedPrefix(*pair) for pair in self.keys_values]) if self.length else None


class _SharedPrefix(DynamicLayer):
    """A cache layer of constant size that puts the prefix before any batch's keys and values."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        return keys, values


class _DeepestExitReached(Exception):  # noqa: N818, no error
    """Raised by a hook after the last requested state, to skip the remaining blocks."""


def check_causal(backbone: Backbone) -> None:
    """Raise `UnsupportedModelError` if tokens can't be read after every block, or if one sees what follows it.

    Tried with two tokens, once a model.
    """
    if backbone.decoder not in _CAUSAL:
        _try_two_tokens(backbone)
        _CAUSAL.add(backbone.decoder)


_CAUSAL: WeakSet[nn.Module] = WeakSet()


@torch.inference_mode()
def _try_two_tokens(backbone: Backbone) -> None:
    kind, ids = backbone.decoder.config.model_type, torch.tensor([[1, 2], [1, 3]], device=backbone.device)
    exits = [*range(len(backbone.blocks) + 1), None]
    try:
        states = _run(backbone, ids, exits)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).split("\n")[0]
        raise UnsupportedModelError(f"{kind} can't be run on texts alone ({reason})") from error
    if set(exits) - states.keys():
        raise UnsupportedModelError(f"{kind} does not run every block on texts alone")
    if any(hidden.shape != (*ids.shape, backbone.width) for hidden in states.values()):
        raise UnsupportedModelError(f"{kind} has no state of {backbone.width} numbers for each token after every block")
    first = states[1][:, 0]
    if not torch.allclose(first[0], first[1], rtol=1e-2, atol=1e-3):
        raise UnsupportedModelError(f"{kind} is no causal decoder: its tokens see what follows them, as in an encoder")


def check_bidirectional(backbone: Backbone, prepend: Prepend) -> None:
    """Raise `UnsupportedModelError` if tokens can't be made to see what follows them in one of the blocks `start..stop`.

    Tried with eight tokens, once a block of a model: its first four must change with the last four.
    """
    kind = backbone.decoder.config.model_type
    if not caches_prefix(backbone):
        raise UnsupportedModelError(f"bidirectional: {kind} has blocks that are not attention alone, which read forwards")
    known = _BIDIRECTIONAL.setdefault(backbone.decoder, set())
    for i in set(range(prepend.start, prepend.stop)) - known:
        if not _sees_what_follows(backbone, i):
            raise UnsupportedModelError(f"bidirectional: block {i} of {kind} attends to earlier tokens whatever its mask")
        known.add(i)


_BIDIRECTIONAL: MutableMapping[nn.Module, set[int]] = WeakKeyDictionary()


@torch.inference_mode()
def _sees_what_follows(backbone: Backbone, block: int) -> bool:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 10, 11, 12]], device=backbone.device)
    last, text = torch.tensor([7, 7], device=ids.device), torch.tensor([[0, 8], [0, 8]], device=ids.device)
    changes = []
    for begin in (None, 0):
        batch = TokenBatch((), ids, None, last, text, bidirectional=begin)
        states = hidden_states(backbone, batch, Prefix(0), {block + 1}, Prepend("bidirectional", block, block + 1))
        changes.append(float((states[block + 1][0, :4] - states[block + 1][1, :4]).float().norm()))
    return changes[1] > 2 * changes[0]


@torch.inference_mode()
def caches_prefix(backbone: Backbone) -> bool:
    """Return whether the states of a common prefix can be kept and put before other texts; tried once a model.

    Recurrent, convolutional and compressed states can't, nor can what blocks read beside their input: there the prefix is
    read with every text.
    """
    if backbone.decoder not in _CACHES_PREFIX:
        _CACHES_PREFIX[backbone.decoder] = backbone.has_attention_only and _cache_is_right(backbone)
    return _CACHES_PREFIX[backbone.decoder]


_CACHES_PREFIX: MutableMapping[nn.Module, bool] = WeakKeyDictionary()


def _cache_is_right(backbone: Backbone) -> bool:
    ids, depth = [1, 2, 3, 4, 5, 6], len(backbone.blocks)
    try:
        prefix = read_prefix(backbone, ids[:3], depth)
        after = torch.tensor([ids[3:]], device=backbone.device)
        got = _run(backbone, after, (depth,), cache=prefix.cache())[depth]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        logger.info("%s reads the prefix with every text (%s)", backbone.decoder.config.model_type, error)
        return False
    want = _run(backbone, torch.tensor([ids], device=backbone.device), (depth,))[depth][:, 3:]
    return bool((got - want).norm() <= 0.05 * want.norm())


@torch.inference_mode()
def read_prefix(backbone: Backbone, ids: Sequence[int], depth: int) -> Prefix:
    """Run a template's common first tokens through `depth` blocks."""
    if not ids:
        return Prefix(0)
    cache = DynamicCache()  # without the model's configuration, so that no layer drops what is outside a sliding window
    states = _run(backbone, torch.tensor([list(ids)], device=backbone.device), range(depth + 1), cache=cache)
    layers = [layer for layer in cache.layers[:depth] if isinstance(layer, DynamicLayer)]
    keys_values = tuple(
        (layer.keys, layer.values) for layer in layers if layer.keys is not None and layer.values is not None
    )
    sums = {block: hidden[0].sum(dim=0, dtype=torch.float32) for block, hidden in states.items() if block is not None}
    return Prefix(len(ids), keys_values, sums)


@torch.inference_mode()
def hidden_states(
    backbone: Backbone, batch: TokenBatch, prefix: Prefix, exits: Collection[Exit], prepend: Prepend | None
) -> dict[Exit, torch.Tensor]:
    """Return the hidden states `(B, T, H)` at each exit, the prefix's positions left out."""
    blocks = list(backbone.blocks)
    if prepend is not None and prepend.kind == "bidirectional":
        rewired = bidirectional(blocks, prepend, batch, prefix.length, backbone.attention)
    else:
        streams = backbone.streams_first
        rewired = prepending(blocks, prepend, batch.slots, batch.last, prefix.sums or {}, prefix.length, streams)
    return _run(backbone, batch.ids, exits, batch.slots, prefix.cache(), rewired)


def _run(
    backbone: Backbone,
    ids: torch.Tensor,
    exits: Collection[Exit],
    slots: torch.Tensor | None = None,
    cache: Cache | None = None,
    rewired: AbstractContextManager[None] | None = None,
) -> dict[Exit, torch.Tensor]:
    """Run the decoder on tokens `(B, T)` and keep the hidden states at `exits`; without None it stops at the deepest.

    The embeddings at the slots are zero.
    """
    states: dict[Exit, torch.Tensor] = {}
    wanted = sorted(count for count in exits if count is not None)
    stop = None if None in exits else wanted[-1]

    def keep(count: int, hidden: torch.Tensor) -> None:
        states[count] = backbone.merged(hidden)
        if count == stop:
            raise _DeepestExitReached

    owner = threading.get_ident()

    def keep_output(module: nn.Module, args: object, output: Any) -> None:
        if threading.get_ident() != owner:
            return
        keep(len(backbone.blocks), output[0] if isinstance(output, (tuple, list)) else output)

    reads: dict[nn.Module, PreHook] = {
        backbone.blocks[count]: lambda hidden, count=count: keep(count, hidden)  # type: ignore[misc]
        for count in wanted
        if count < len(backbone.blocks)
    }

    def clear_slots(module: nn.Module, args: object, embeds: torch.Tensor) -> None:
        if slots is not None and threading.get_ident() == owner:
            embeds[torch.arange(len(embeds), device=embeds.device)[:, None], slots[:, :, 0]] = 0.0

    with ExitStack() as stack:
        stack.callback(backbone.decoder.get_input_embeddings().register_forward_hook(clear_slots).remove)
        stack.enter_context(pre_hooks(reads))  # before prepending, which changes a block's input, not the previous output
        if rewired is not None:
            stack.enter_context(rewired)
        if len(backbone.blocks) in wanted:
            stack.callback(backbone.blocks[-1].register_forward_hook(keep_output).remove)
        try:
            options = {"past_key_values": cache, "use_cache": cache is not None}
            taken = {name: value for name, value in options.items() if name in backbone.parameters}
            states[None] = backbone.decoder(input_ids=ids, **taken).last_hidden_state
        except _DeepestExitReached:
            pass
    return states
