"""Token prepending: hooks on the blocks of a model for the time of one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tp_retrieval.embedding.recipe import Prepend

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None
PreHook = Callable[[torch.Tensor], torch.Tensor | None]


@contextmanager
def prepending(
    blocks: Sequence[nn.Module],
    prepend: Prepend | None,
    slots: torch.Tensor | None,
    last: torch.Tensor,
    prefix_sums: Mapping[int, torch.Tensor],
    prefix_length: int,
    streams_first: bool = False,
) -> Iterator[None]:
    """Rewrite the slots of every row before blocks `start..stop` (Token Prepending, arXiv 2412.11556, section 3).

    `slots` are positions of slots and of the tokens they copy `(B, S, 2)`, `last` is that of the last token `(B,)`.
    `prefix_sums[i]` is the sum `(H,)` of a cached prefix's inputs of block i, which `tp-mean` needs. Where blocks pass
    several streams on, each is rewritten; with `streams_first` they are `(streams, B, T, H)`, else `(B, T, streams, H)`.
    Without `prepend` or slots nothing happens.
    """
    if prepend is None or slots is None:
        yield
        return
    rows = torch.arange(len(last), device=last.device)
    slot = slots[:, 0, 0]

    def copy_tokens(hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.clone()  # the input may be another block's output, which a view still reads
        hidden[rows[:, None], slots[:, :, 0]] = hidden[rows[:, None], slots[:, :, 1]]
        return hidden

    def copy_mean(hidden: torch.Tensor, prefix_sum: torch.Tensor | None) -> torch.Tensor:
        """Put the mean of all real tokens, the cached prefix among them, into the slot."""
        hidden = hidden.clone()
        real = torch.arange(hidden.shape[1], device=last.device) <= last[:, None]
        real[rows, slot] = False
        ones = [1] * (hidden.dim() - 2)
        total = (hidden * real.view(*real.shape, *ones)).sum(dim=1, dtype=torch.float32)
        if prefix_sum is not None:
            total += prefix_sum
        hidden[rows, slot] = (total / (real.sum(dim=1) + prefix_length).view(-1, *ones)).to(hidden.dtype)
        return hidden

    hooks: dict[nn.Module, PreHook] = {}
    for i in range(prepend.start, prepend.stop):
        if prepend.kind != "tp-mean":
            hooks[blocks[i]] = copy_tokens
        else:
            hooks[blocks[i]] = lambda hidden, i=i: copy_mean(hidden, prefix_sums.get(i))  # type: ignore[misc]
    if streams_first:
        hooks = {block: _for_streams_first(function) for block, function in hooks.items()}
    with pre_hooks(hooks):
        yield


def _for_streams_first(function: PreHook) -> PreHook:
    """Return a function for states with the axis of streams in front."""

    def changed(hidden: torch.Tensor) -> torch.Tensor | None:
        result = function(hidden.movedim(0, 2))
        return None if result is None else result.movedim(2, 0)

    return changed


@contextmanager
def pre_hooks(hooks: Mapping[nn.Module, PreHook]) -> Iterator[None]:
    """Call a function on the hidden states that enter a module, in this thread only; hooks are removed in any case.

    A function returns what shall enter instead, or None to leave it.
    """
    owner = threading.get_ident()
    handles = []

    def register(module: nn.Module, function: PreHook) -> None:
        """Hook a function to a module, wherever that gets its hidden states from."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> HookResult:
            """Return the arguments with the hidden states changed; None in another thread."""
            if threading.get_ident() != owner or kwargs is None:  # another thread, which may even call it without kwargs
                return None
            if args:
                changed = function(args[0])
                return None if changed is None else ((changed, *args[1:]), kwargs)
            changed = function(kwargs["hidden_states"])
            return None if changed is None else (args, {**kwargs, "hidden_states": changed})

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        for module, function in hooks.items():
            register(module, function)
        yield
    finally:
        for handle in handles:
            handle.remove()
