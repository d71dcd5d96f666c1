"""A sweep: one pass of a model over texts, with the vectors of every exit and readout.

sweep = Sweep(embedder)
states = sweep.states('This passage : "{text}" means in one word:"', None, texts)
states.view(28, "last")      # (n, width) float32, as an embedder with View(28, "last") would give
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.maps.affine import unit
from tp_retrieval.embedding.maps.within import ViewStretches, joined
from tp_retrieval.embedding.recipe import Prepend, Readout, Recipe, View
from tp_retrieval.evaluation.metrics import Rows
from tp_retrieval.types import Float32Array

_AT_ONCE = 256  # texts whose states of every exit are in memory together
READOUTS: tuple[Readout, ...] = ("last", "mean")
"""The readouts stored of every exit; last+mean is computed from both."""


@dataclass(frozen=True)
class States:
    """Pooled hidden states of texts, a vector for each exit and readout, memory-mapped."""

    exits: tuple[int | None, ...]
    vectors: NDArray[np.float32]  # (exits, readouts, n, width)
    stretches: Mapping[Readout, ViewStretches] = field(default_factory=dict)
    """Stretches of a sample of documents for each readout, with the exits side by side, `(s, exits * width)`."""

    def view(self, exit_: int | None, readout: Readout) -> Float32Array:
        """Return the raw vectors `(n, width) float32` of a view."""
        of_exit = self.vectors[self.exits.index(exit_)]
        if readout != "last+mean":
            return np.asarray(of_exit[READOUTS.index(readout)])
        return np.asarray((unit(of_exit[0]) + unit(of_exit[1])) / 2, dtype=np.float32)

    def stretches_of(self, exit_: int | None, readout: Readout) -> ViewStretches | None:
        """Return the stretches `(s, width)` of a view; None if none were read, as for last+mean."""
        if readout not in self.stretches:
            return None
        all_exits, width = self.stretches[readout], self.vectors.shape[-1]
        begin = width * self.exits.index(exit_)
        return replace(all_exits, vectors=all_exits.vectors[:, begin : begin + width])


class Sweep:
    """Runs a model over texts and stores the states of every exit, in a temporary folder until `close`."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        blocks = embedder.backbone.n_blocks
        self.exits: tuple[int | None, ...] = (*range(blocks + 1), None)
        self._views = [View(exit_, readout) for exit_ in self.exits for readout in READOUTS]
        self._folder = tempfile.TemporaryDirectory(prefix="tp-retrieval-sweep-")
        self._files = 0

    def states(
        self,
        template: str,
        prepend: Prepend | None,
        texts: Sequence[str],
        bar: tqdm[object] | None = None,
        *,
        query: str | None = None,
        sampled: Mapping[Readout, Rows] | None = None,
    ) -> States:
        """Run texts through a template once, with prepending if a template has a slot.

        `sampled` are the positions of the texts whose stretches are read as well, by readout; those of the last token go
        through the template `query`.
        """
        recipe = self._embedder.recipe
        query = query or template
        used = prepend if "<PST>" in template + query else None
        swept = self._embedder.with_recipe(Recipe(query, template, self._views, used, recipe.clean, recipe.max_tokens))
        width = swept.backbone.width
        self._files += 1
        file = Path(self._folder.name) / f"{self._files}.states"
        vectors = np.memmap(file, np.float32, "w+", shape=(len(self.exits), len(READOUTS), len(texts), width))
        wanted = self._wanted(sampled or {}, len(texts))
        stretches: dict[Readout, dict[int, Float32Array]] = {readout: {} for readout in sampled or {}}
        for begin in range(0, len(texts), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            raw, of_part = swept.embed_with_stretches(texts[part], wanted[part])
            for readout, of_readout in stretches.items():
                views = self._views_of(readout)
                for i, of_text in enumerate(of_part, begin):
                    if views[0] in of_text:
                        of_readout[i] = np.concatenate([of_text[view] for view in views], axis=1)
            vectors[:, :, begin : begin + len(raw)] = raw.reshape(
                len(raw), len(self.exits), len(READOUTS), width
            ).transpose(1, 2, 0, 3)
            if bar is not None:
                bar.update(len(raw))
        file.unlink()  # the mapping keeps its bytes until the states are deleted
        mapped = {readout: self._mapped(joined(rows, readout != "mean")) for readout, rows in stretches.items()}
        return States(self.exits, vectors, mapped)

    def _mapped(self, stretches: ViewStretches) -> ViewStretches:
        """Return stretches whose vectors lie in a file and not in memory."""
        if not stretches.vectors.size:
            return stretches
        self._files += 1
        file = Path(self._folder.name) / f"{self._files}.stretches"
        vectors = np.memmap(file, np.float32, "w+", shape=stretches.vectors.shape)
        vectors[:] = stretches.vectors
        file.unlink()
        return replace(stretches, vectors=vectors)

    def _views_of(self, readout: Readout) -> list[int]:
        return [i for i, view in enumerate(self._views) if view.readout == readout]

    def _wanted(self, sampled: Mapping[Readout, Rows], count: int) -> list[set[int]]:
        """Return for each text the views whose stretches are wanted of it."""
        wanted: list[set[int]] = [set() for _ in range(count)]
        for readout, rows in sampled.items():
            for row in rows.tolist():
                wanted[row].update(self._views_of(readout))
        return wanted

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()
