"""The embedder: a frozen language model with a recipe for turning texts into vectors."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from tp_retrieval.embedding.forward.batching import Batching
from tp_retrieval.embedding.forward.forward import (
    Prefix,
    caches_prefix,
    check_bidirectional,
    check_causal,
    hidden_states,
    read_prefix,
)
from tp_retrieval.embedding.forward.readout import read, read_stretches
from tp_retrieval.embedding.forward.tokens import Row, TemplateTokenizer, collate
from tp_retrieval.embedding.maps import maps_file
from tp_retrieval.embedding.maps.affine import AffineMap, combine, fit_views, split
from tp_retrieval.embedding.maps.within import embed_sample, ranges
from tp_retrieval.embedding.model import fingerprints
from tp_retrieval.embedding.model.backbone import Backbone, n_blocks_of
from tp_retrieval.embedding.model.in_memory import held_by
from tp_retrieval.embedding.model.source import ModelSource
from tp_retrieval.embedding.recipe import DEFAULT_RECIPE, Recipe
from tp_retrieval.embedding.template import clean
from tp_retrieval.embedding.workers import embedded
from tp_retrieval.errors import InputError, TruncationWarning
from tp_retrieval.types import (
    FORMAT_2,
    Float32Array,
    Identity,
    Provenance,
    Role,
    Stretches,
    VectorView,
    checked_texts,
)

_WINDOW = 4096  # texts tokenised and sorted by length together; memory does not grow with the input


@dataclass(frozen=True)
class _Reading:
    """What a pass reads: some views by number, ascending, and of some texts the stretches of the views of the mean."""

    views: tuple[int, ...]
    stretched: Collection[str] = ()


@dataclass(frozen=True)
class _RawVectors:
    """Raw vectors `(n, dim)` of texts, the number of tokens cut off each, and stretches of some, by text."""

    vectors: Float32Array
    cuts: list[int]
    stretches: Mapping[str, Stretches] = field(default_factory=dict)


class Embedder:
    """An embedder of queries and documents by a language model that is neither trained nor changed.

    `maps` are affine maps fitted on a corpus, one a view; with them vectors are mapped, weighted and of unit length,
    without them they are the raw views side by side; `folder` is the one that a fitted embedder was read from. Raises
    `RecipeError` where recipe and model do not fit, `UnsupportedModelError` where the model can't be rewired.
    """

    def __init__(
        self, backbone: Backbone, recipe: Recipe, maps: Sequence[AffineMap] | None = None, folder: Path | None = None
    ) -> None:
        self._backbone = backbone
        self._folder = folder
        self._recipe = recipe
        self._maps = None if maps is None else tuple(maps)
        self._exits = recipe.exits(backbone.n_blocks)
        self._depth = recipe.depth(backbone.n_blocks)
        self._batching = Batching(backbone.device)
        self._plain = backbone.plain_tokenizer
        self._max_tokens = min(recipe.max_tokens, backbone.max_positions or recipe.max_tokens)
        check_causal(backbone)
        if recipe.prepend is not None and recipe.prepend.kind == "bidirectional":
            check_bidirectional(backbone, recipe.prepend)
        kind, cached = None if recipe.prepend is None else recipe.prepend.kind, caches_prefix(backbone)
        self._tokenizers = {
            template: TemplateTokenizer(backbone.tokenizer, self._plain, template, self._max_tokens, kind, cached)
            for template in recipe.query + recipe.document
        }
        self._prefixes: dict[tuple[int, ...], Prefix] = {}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        recipe: str | Path | Recipe | None = None,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        whole: bool = False,
    ) -> Embedder:
        """Load a model only as deep as its recipe reads it.

        `model` is a hub id, a folder, a GGUF file or a folder that `save` wrote; None is the embedded default, else the
        hub's SmolLM2-135M-Instruct. `recipe` is a `Recipe`, a name or a JSON file, by default `retrieval-balanced`. `dtype`
        "auto" is bfloat16 where it is faster than float32 here. `model_kwargs` go to transformers as they are. `whole`
        loads every block and the LM head at once, for a `Reranker` or for generation to share. Raises `ModelNotFoundError`,
        `UnsupportedModelError`, `OutOfMemoryError` or `RecipeError`.
        """
        saved = maps_file.read(Path(model)) if model is not None else None
        if saved is not None:
            if recipe not in (None, saved.recipe):
                raise InputError(f"recipe: {model} was fitted with its own recipe; leave the argument out")
            model, revision, recipe = saved.model, revision or saved.revision, saved.recipe
        source = ModelSource.find(
            model,
            device=device,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            model_kwargs=model_kwargs or {},
        )
        config = source.config()
        if not isinstance(recipe, Recipe):
            recipe = Recipe.load(recipe or DEFAULT_RECIPE, source.name)
        depth = recipe.depth(n_blocks_of(config))
        backbone = Backbone.load(source, config, depth, dtype=dtype, whole=whole)
        if saved is None:
            return cls(backbone, recipe)
        embedder = cls(backbone, recipe, saved.maps, saved.folder.resolve())
        saved.check_weights(embedder.provenance.weights, embedder.legacy_identity().provenance.weights)
        return embedder

    @classmethod
    def from_model(
        cls,
        model: object,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        recipe: str | Path | Recipe | None = None,
    ) -> Embedder:
        """Return an embedder of a language model that is in memory, with the same weights.

        `model` is a causal language model of transformers, or an object that holds one with its tokenizer: a pipeline, a
        `HuggingFacePipeline` or `ChatHuggingFace` of LangChain, a `HuggingFaceLLM` of LlamaIndex.
        Nothing is copied or changed: the model generates as before, and a `Reranker` of the embedder reads its LM head.
        Make another embedder where the weights change, or another adapter of PEFT becomes active.
        `recipe` is as in `from_pretrained`; one that was measured for the model is found by the model's name. Another
        process can load the model, as an index does that is opened without an embedder, if that name says where it lies.
        Raises `InputError` for a model in training mode or without weights, `UnsupportedModelError` for no decoder.
        """
        held = held_by(model)
        tokenizer = held.tokenizer if tokenizer is None else tokenizer
        if tokenizer is None:
            raise InputError("tokenizer: a model alone has none; give that of the model")
        backbone = Backbone.wrap(held.model, tokenizer)
        if not isinstance(recipe, Recipe):
            recipe = Recipe.load(recipe or DEFAULT_RECIPE, backbone.name)
        return cls(backbone, recipe)

    @property
    def backbone(self) -> Backbone:
        """The loaded model, which others may share."""
        return self._backbone

    @property
    def folder(self) -> Path | None:
        """The folder that its fitted maps were read from, or None."""
        return self._folder

    @property
    def recipe(self) -> Recipe:
        """The recipe this embedder follows."""
        return self._recipe

    @property
    def fitted(self) -> bool:
        """Whether its maps are fitted; its vectors are of unit length then."""
        return self._maps is not None

    @cached_property
    def raw_views(self) -> tuple[VectorView, ...]:
        """The parts of a raw vector, one a view of the recipe."""
        width = self._backbone.width
        return tuple(
            VectorView(width, view.postprocess, view.weight, view.readout != "mean", view.sample)
            for view in self._recipe.views
        )

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        if self._maps is None:
            return self._raw_dimension
        return sum(fitted.width(view.width) for fitted, view in zip(self._maps, self.raw_views, strict=True))

    @property
    def _raw_dimension(self) -> int:
        return sum(view.width for view in self.raw_views)

    @cached_property
    def provenance(self) -> Provenance:
        """The model and recipe behind the vectors, for an index to compare."""
        backbone = self._backbone
        return Provenance(
            model=backbone.name,
            source=backbone.origin if self._folder is None else str(self._folder),
            revision=backbone.revision,
            weights=fingerprints.format_2(backbone, self._depth),
            dtype=str(backbone.dtype).removeprefix("torch."),
            recipe=self._recipe.to_dict(),
            views=self.raw_views if self._maps is None else (VectorView(self.dimension),),
            settings={} if backbone.source is None else backbone.source.settings,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides what a text's vector is: weights, tokenizer, raw recipe and fitted maps."""
        return FORMAT_2 + self._fingerprint_with(self.provenance.weights)

    def legacy_identity(self) -> Identity:
        """Return the fingerprint and the provenance that earlier versions stored, to compare old indexes with."""
        provenance = replace(self.provenance, weights=fingerprints.format_1(self._backbone, self._depth))
        return Identity(self._fingerprint_with(provenance.weights), provenance)

    def _fingerprint_with(self, weights: str) -> str:
        parts = [weights, json.dumps(self._recipe.raw().to_dict(), sort_keys=True)]
        if self._maps is not None:
            mapped = replace(self._recipe, dense_weight=None)  # which decides no vector
            parts += [json.dumps(mapped.to_dict(), sort_keys=True), *(map_.digest() for map_ in self._maps)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def count_tokens(self, text: str) -> int:
        """Return the number of the model's tokens of a text, without template and special tokens."""
        return len(self._plain.encode(checked_texts([text])[0]).ids)

    def cut_tokens(self, texts: Sequence[str], role: Role) -> list[int]:
        """Return the number of last tokens that each text loses to the recipe's `max_tokens`."""
        cleaned = self._cleaned(texts)
        rows = [self._tokenizers[template].rows(cleaned) for template in self._recipe.templates(role)]
        return [max(row.cut for row in same) for same in zip(*rows, strict=True)]

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False, processes: int = 1) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`, through the recipe's query templates.

        With several `processes`, each loads the model and embeds a share of the texts, on a GPU of its own if there are
        several; a script that uses them needs `if __name__ == "__main__":`. Raises `WorkerError` if one is killed.
        """
        vectors, _ = self._embed(texts, "query", self._everything, show_progress, processes)
        return vectors

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False, processes: int = 1) -> Float32Array:
        """Return one vector a text, `(n, dimension) float32`, through the recipe's document templates.

        `processes` is as in `embed_queries`.
        """
        vectors, _ = self._embed(texts, "document", self._everything, show_progress, processes)
        return vectors

    def normalize(self, raw: Float32Array) -> Float32Array:
        """Return raw views as weighted unit vectors without maps, for a vector store other than an `Index`."""
        return combine(raw, self.raw_views, [AffineMap()] * len(self.raw_views))

    def fit(self, texts: Sequence[str]) -> Embedder:
        """Return the same embedder with its recipe's maps fitted on documents, which gives mapped unit vectors.

        Raises `InputError` if there are too few documents for a map.
        """
        raw_embedder = Embedder(self._backbone, self._recipe)
        raw, stretches = embed_sample(raw_embedder, texts, self.raw_views)
        return Embedder(self._backbone, self._recipe, fit_views(raw, self.raw_views, stretches))

    def embed_with_stretches(
        self,
        texts: Sequence[str],
        wanted: Sequence[Collection[int]],
        *,
        sampled: Collection[int] = (),
        show_progress: bool = False,
    ) -> tuple[Float32Array, list[Stretches]]:
        """Return the vectors of documents as `embed_documents` does, and of each the stretches of the views wanted of it.

        Stretches are equal parts of a text, of about 24 tokens. Those of a view of the mean are read in the same pass, the
        others as texts of their own through the query template. The `sampled` views are read of the texts of which one is
        wanted; the vectors of the others are NaN there, and run no more blocks than the other views need. Raises
        `InputError` if the maps are fitted.
        """
        if self._maps is not None and (any(wanted) or sampled):
            raise InputError("stretches: this embedder's maps are fitted; give the one that it was fitted from")
        cleaned = self._cleaned(texts)
        views_of: dict[str, set[int]] = {}
        for text, views in zip(cleaned, wanted, strict=True):
            views_of.setdefault(text, set()).update(views)
        means = set(self._views_of_means)
        stretched = {text for text, views in views_of.items() if views & means}
        whole = [not sampled or not views_of[text].isdisjoint(sampled) for text in cleaned]
        vectors, shared = self._embed_sampled(texts, whole, sampled, stretched, show_progress)
        apart = self._read_apart([text for text, views in views_of.items() if views - means])
        return vectors, [
            {view: (shared if view in means else apart)[text][view] for view in views_of[text]} for text in cleaned
        ]

    def _embed_sampled(
        self,
        texts: Sequence[str],
        whole: Sequence[bool],
        sampled: Collection[int],
        stretched: Collection[str],
        show_progress: bool,
    ) -> tuple[Float32Array, dict[str, Stretches]]:
        """Return the vectors of documents, with NaN in the `sampled` views of those that are not read as a whole."""
        reading, cut = replace(self._everything, stretched=stretched), dict[str, int]()
        if all(whole):
            return self._embed(texts, "document", reading, show_progress)
        rows = np.array(whole)
        kept = [i for i in self._everything.views if i not in sampled]
        vectors = np.full((len(texts), self._raw_dimension), np.nan, dtype=np.float32)
        read = [text for text, w in zip(texts, whole, strict=True) if w]
        vectors[rows], stretches = self._embed(read, "document", reading, cut=cut)
        others = [text for text, w in zip(texts, whole, strict=True) if not w]
        reading = replace(reading, views=tuple(kept))
        of_others, more = self._embed(others, "document", reading, show_progress, cut=cut)
        width = self._backbone.width
        columns = np.concatenate([np.arange(width * i, width * (i + 1)) for i in kept])
        vectors[np.ix_(~rows, columns)] = of_others
        if cut:
            self._warn_of_truncation(self._cleaned(texts), cut)
        return vectors, stretches | more

    def with_recipe(self, recipe: str | Path | Recipe) -> Embedder:
        """Return an embedder of the same weights with another recipe; missing blocks are loaded."""
        if not isinstance(recipe, Recipe):
            recipe = Recipe.load(recipe, self._backbone.name)
        backbone = self._backbone
        if recipe.depth(backbone.n_blocks) > len(backbone.blocks):
            backbone = backbone.language_model().backbone
        return Embedder(backbone, recipe)

    def save(self, folder: str | Path) -> None:
        """Write recipe.json and maps.safetensors, which `from_pretrained(folder)` reads."""
        if self._maps is None:
            raise InputError("save: this embedder has no fitted maps; call fit(texts) first, or keep its recipe's JSON")
        header = {"weights": self.provenance.weights}
        origin = {"model": self._backbone.origin, "revision": self._backbone.revision}
        header |= {name: value for name, value in origin.items() if value is not None}
        maps_file.write(Path(folder), self._recipe, self._maps, header)

    def raw_with_cuts(
        self, texts: Sequence[str], role: Role, bar: tqdm[Any] | None = None
    ) -> tuple[Float32Array, list[int]]:
        """Return raw vectors `(n, dim) float32` of cleaned texts, and the number of tokens cut off each."""
        part = self._raw_vectors(texts, role, self._everything, bar)
        return part.vectors, part.cuts

    @property
    def _everything(self) -> _Reading:
        return _Reading(tuple(range(len(self._recipe.views))))

    def _raw_vectors(
        self, texts: Sequence[str], role: Role, reading: _Reading, bar: tqdm[Any] | None = None
    ) -> _RawVectors:
        """Return raw vectors of different, cleaned texts, and the stretches of some, of the views of the mean."""
        rows_of = [self._tokenizers[template].rows(texts) for template in self._recipe.templates(role)]
        for i in (i for i, text in enumerate(texts) if text in reading.stretched):
            parts = ranges(min(rows[i].text[1] - rows[i].text[0] for rows in rows_of))  # as many in every template
            for rows in rows_of:
                rows[i] = rows[i].with_stretches(parts)
        raw = np.zeros((len(texts), self._backbone.width * len(reading.views)), dtype=np.float32)
        sums: dict[str, Float32Array] = {}
        for rows in rows_of:
            for group, vectors, means in self._embed_rows(rows, reading.views, bar):
                raw[group] += vectors / len(rows_of)
                for i, of_row in zip(group, means, strict=True):
                    if rows[i].stretches:
                        sums[texts[i]] = sums.get(texts[i], np.zeros_like(of_row)) + of_row
        views = [i for i in reading.views if i in self._views_of_means]
        stretches: dict[str, Stretches] = {
            text: dict(zip(views, np.split(of_text / np.float32(len(rows_of)), len(views), axis=1), strict=True))
            for text, of_text in sums.items()
        }
        return _RawVectors(raw, [max(row.cut for row in same) for same in zip(*rows_of, strict=True)], stretches)

    @property
    def _views_of_means(self) -> list[int]:
        return [i for i, view in enumerate(self._recipe.views) if view.readout == "mean"]

    def _read_apart(self, texts: Sequence[str]) -> dict[str, Stretches]:
        """Return the stretches of cleaned texts, read as texts of their own through the query template."""
        parts = {text: self._parts_of(text) for text in texts}
        unique = list(dict.fromkeys(self._cleaned([part for of_text in parts.values() for part in of_text])))
        raw = np.zeros((len(unique), self._raw_dimension), dtype=np.float32)
        for begin in range(0, len(unique), _WINDOW):
            window = slice(begin, begin + _WINDOW)
            raw[window] = self._raw_vectors(unique[window], "query", self._everything).vectors
        self._check_finite(raw, unique)
        row = {part: i for i, part in enumerate(unique)}
        rows = {text: [row[part] for part in self._cleaned(of_text)] for text, of_text in parts.items()}
        return {text: dict(enumerate(split(raw[of_text], self.raw_views))) for text, of_text in rows.items()}

    def _parts_of(self, text: str) -> list[str]:
        """Return the stretches of a text as texts."""
        offsets = self._plain.encode(text).offsets[: self._max_tokens]
        return [
            text[offsets[begin][0] : offsets[end - 1][1]] for begin, end in ranges(len(offsets), asymmetric=True) if end
        ]

    def _embed(
        self,
        texts: Sequence[str],
        role: Role,
        reading: _Reading,
        show_progress: bool = False,
        processes: int = 1,
        cut: dict[str, int] | None = None,
    ) -> tuple[Float32Array, dict[str, Stretches]]:
        """Return the vectors of texts, and the stretches that are read as well, by text.

        What texts lose is added to `cut`, or, without it, warned of.
        """
        if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
            raise InputError(f"processes: {processes!r} must be a whole number from 1")
        if self._backbone.decoder.training:
            raise InputError("the model is in training mode by now, where dropout makes vectors random; call model.eval()")
        cleaned = self._cleaned(texts)
        unique = list(dict.fromkeys(cleaned))  # equal texts are embedded once, and so get equal vectors
        raw = np.zeros((len(unique), self._backbone.width * len(reading.views)), dtype=np.float32)
        lost: dict[str, int] = {} if cut is None else cut
        stretches: dict[str, Stretches] = {}
        total = len(unique) * len(self._recipe.templates(role))
        with tqdm(total=total, unit="text", disable=not show_progress) as bar:
            for begin, part in self._parts(unique, role, reading, processes, bar):
                raw[begin : begin + len(part.vectors)] = part.vectors
                lost |= {text: n for text, n in zip(unique[begin : begin + len(part.cuts)], part.cuts, strict=True) if n}
                stretches |= part.stretches
        self._check_finite(raw, unique)
        if lost and cut is None:
            self._warn_of_truncation(cleaned, lost)
        position = {text: i for i, text in enumerate(unique)}
        raw = raw[[position[text] for text in cleaned]]
        return raw if self._maps is None else combine(raw, self.raw_views, self._maps, role), stretches

    def _parts(
        self, texts: Sequence[str], role: Role, reading: _Reading, processes: int, bar: tqdm[Any]
    ) -> Iterator[tuple[int, _RawVectors]]:
        """Yield the position and the raw vectors of parts of a list, in order."""
        if processes > 1 and len(texts) > 1:
            load, device = partial(_load_again, *self._source()), str(self._backbone.device)
            with closing(embedded(load, device, texts, role, processes)) as parts:
                for begin, part in parts:
                    bar.update(len(part[1]) * len(self._recipe.templates(role)))
                    yield begin, _RawVectors(*part)
            return
        for begin in range(0, len(texts), _WINDOW):
            yield begin, self._raw_vectors(texts[begin : begin + _WINDOW], role, reading, bar)

    def _source(self) -> tuple[ModelSource, Recipe, torch.dtype]:
        """Return the arguments that load the same raw embedder in another process; raise `InputError` if it can't."""
        source = self._backbone.source
        if source is None:
            raise InputError("processes: the model was given as an object, which another process can't load; name it")
        return source, self._recipe.raw(), self._backbone.dtype

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        checked = checked_texts(texts)
        return [clean(text) for text in checked] if self._recipe.clean else checked

    def _embed_rows(
        self, rows: Sequence[Row], views: Sequence[int], bar: tqdm[Any] | None
    ) -> Iterator[tuple[list[int], Float32Array, list[Float32Array]]]:
        """Yield the numbers, the raw vectors and the stretches of batches of one template's rows."""
        for group, (vectors, means) in self._batching.run(rows, partial(self._forward, views=views)):
            ends = np.cumsum([len(rows[i].stretches) for i in group])
            yield group, vectors, np.split(means, ends[:-1])
            if bar is not None:
                bar.update(len(group))

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row], views: Sequence[int]) -> tuple[Float32Array, Float32Array]:
        """Return the rows' raw vectors of some views, and the stretches of those of the mean, side by side."""
        read_views = [(self._exits[i], self._recipe.views[i]) for i in views]
        batch = collate(rows).to(self._backbone.device)
        with self._backbone.lock:
            if batch.prefix not in self._prefixes:
                self._prefixes[batch.prefix] = read_prefix(self._backbone, batch.prefix, max(self._depth, 1))
            exits = {count for count, _ in read_views}
            states = hidden_states(self._backbone, batch, self._prefixes[batch.prefix], exits, self._recipe.prepend)
        vectors = torch.cat([read(states[count], batch, view.readout) for count, view in read_views], dim=1)
        means = [read_stretches(states[count], batch) for count, view in read_views if view.readout == "mean"]
        stretches = torch.cat(means, dim=1).cpu().numpy() if means else np.zeros((0, 0), dtype=np.float32)
        return vectors.cpu().numpy(), stretches

    def _check_finite(self, raw: Float32Array, texts: Sequence[str]) -> None:
        bad = np.flatnonzero(~np.isfinite(raw).all(axis=1))
        if len(bad):
            kind = str(self._backbone.dtype).removeprefix("torch.")
            remedy = "; float16 can't hold them: load with dtype='bfloat16' or 'float32'" if kind == "float16" else ""
            raise InputError(f"the model's states are NaN or infinite in {kind} for {texts[bad[0]][:60]!r}{remedy}")

    def _warn_of_truncation(self, texts: Sequence[str], cut: dict[str, int]) -> None:
        lost = [cut.get(text, 0) for text in texts]
        worst = int(np.argmax(lost))
        warnings.warn(
            f"{np.count_nonzero(lost)} of {len(texts)} texts were cut to max_tokens={self._max_tokens}; "
            f"texts[{worst}] lost the most, its last {lost[worst]} tokens",
            TruncationWarning,
            stacklevel=4,
        )


def _load_again(source: ModelSource, recipe: Recipe, dtype: torch.dtype, device: str) -> Embedder:
    """Load the raw embedder of a recipe in another process."""
    source, config = replace(source, device=device), source.config()
    return Embedder(Backbone.load(source, config, recipe.depth(n_blocks_of(config)), dtype=dtype), recipe)
