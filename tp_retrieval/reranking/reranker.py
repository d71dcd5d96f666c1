"""The reranker: it orders hits by reading query and document together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.embedding.recipe import Recipe
from tp_retrieval.errors import InputError
from tp_retrieval.indexing.search.fusion import convex
from tp_retrieval.reranking.cross_encoder import CrossEncoderScorer
from tp_retrieval.reranking.embedding import EmbeddingScorer
from tp_retrieval.reranking.methods import Choice, PairScorer, PromptMethod, QueryLikelihood, YesNo
from tp_retrieval.reranking.prompted import PromptScorer
from tp_retrieval.types import Float32Array, Hit, check_text, checked_texts

PROMPTED: Mapping[str, type[QueryLikelihood | YesNo | Choice]] = {
    "query-likelihood": QueryLikelihood,
    "yes-no": YesNo,
    "choice": Choice,
}
METHODS = (*PROMPTED, "embedding")
DEFAULT_METHOD = "query-likelihood"
EMBEDDING_RECIPE = "sts"
"""The default recipe of the method "embedding"."""

WEIGHT = 0.5
"""Share of the rerank score in the fused one; `benchmarks/reranking.py` measures it."""
DEPTH = 20
"""Hits that a search retrieves for a reranker; the same benchmark measures it."""
MAX_TOKENS = 1024
"""Of prompt, query and document together."""

logger = logging.getLogger(__name__)


class PromptOptions(TypedDict, total=False):
    """Options of a method on a language model's logits; defaults are the method's own."""

    prompt: str
    chat: bool
    calibrate: bool
    max_tokens: int


class PretrainedOptions(PromptOptions, total=False):
    """Options of a method, and those of `Embedder.from_pretrained`."""

    recipe: str | Path | Recipe | None
    device: str | None
    dtype: str | torch.dtype
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    model_kwargs: dict[str, Any] | None


class Ranked(NamedTuple):
    """A text of an ordered list: its position in the list before, and its score."""

    position: int
    score: float


class Reranker:
    """A model that orders hits by how well each document, read together with the query, answers it.

    `method` is "query-likelihood", "yes-no", "choice" or "embedding", on the embedder's own model, whose weights are
    shared; or a method object of yours; or, without an embedder, anything with `score_pairs`.
    `weight` is the share of the new score in the final one, from 0 to 1; `depth` is how many hits a search retrieves.

    Options of the first three: `prompt` with `{query}` and `{document}` once each; `chat` puts it into the model's chat
    template; `calibrate` subtracts each document's score under a query without content; `max_tokens` (1024) bounds prompt,
    query and document together.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        *,
        method: str | PromptMethod | PairScorer = DEFAULT_METHOD,
        weight: float = WEIGHT,
        depth: int = DEPTH,
        **options: Unpack[PromptOptions],
    ) -> None:
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 <= weight <= 1:
            raise InputError(f"weight: {weight!r} must be from 0 to 1")
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
            raise InputError(f"depth: {depth!r} must be a whole number from 1")
        _check_options(options)
        self._scorer = _scorer(embedder, method, options)
        self._weight = weight
        self._depth = depth

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        method: str | PromptMethod = DEFAULT_METHOD,
        weight: float = WEIGHT,
        depth: int = DEPTH,
        **options: Unpack[PretrainedOptions],
    ) -> Reranker:
        """Load a model to rerank with; `model` and its options are what `Embedder.from_pretrained` takes.

        Method "embedding" follows the recipe `sts`, if none is given and the embedder is not a fitted one. To share the
        weights with an embedder, give that to `Reranker` instead.
        """
        arguments: dict[str, Any] = dict(options)
        asked = {name: arguments.pop(name) for name in PromptOptions.__annotations__ if name in arguments}
        embedder = Embedder.from_pretrained(model, whole=method != "embedding", **arguments)
        if method == "embedding" and arguments.get("recipe") is None and not embedder.fitted:
            embedder = embedder.with_recipe(EMBEDDING_RECIPE)
        return cls(embedder, method=method, weight=weight, depth=depth, **asked)

    @classmethod
    def from_model(
        cls,
        model: object,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        method: str | PromptMethod = DEFAULT_METHOD,
        weight: float = WEIGHT,
        depth: int = DEPTH,
        **options: Unpack[PromptOptions],
    ) -> Reranker:
        """Rerank with a language model that is in memory; `model` and `tokenizer` are what `Embedder.from_model` takes."""
        recipe = EMBEDDING_RECIPE if method == "embedding" else None
        embedder = Embedder.from_model(model, tokenizer, recipe=recipe)
        return cls(embedder, method=method, weight=weight, depth=depth, **options)

    @classmethod
    def from_cross_encoder(cls, model: Any, *, weight: float = 1.0, depth: int = DEPTH) -> Reranker:
        """Put a sentence-transformers `CrossEncoder`, loaded or by name, in the language model's place."""
        return cls(method=CrossEncoderScorer(model), weight=weight, depth=depth)

    @property
    def depth(self) -> int:
        """The number of hits that a search retrieves for reranking."""
        return self._depth

    def score(self, query: str, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return how well each text answers the query, `(n,) float32`, higher is better; the method gives the unit."""
        check_text(query, "query")
        return self.score_pairs([(query, text) for text in checked_texts(texts)], show_progress=show_progress)

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return how well the document of each pair answers its query, `(n,) float32`.

        Pairs that share a document, or a query, share its forward pass.
        """
        listed = [_checked_pair(pair, f"pairs[{i}]") for i, pair in enumerate(pairs)]
        scores = self._scorer.score_pairs(listed, show_progress=show_progress)
        if np.shape(scores) != (len(listed),):
            raise InputError(f"method: the scorer gave {np.shape(scores)} scores for {len(listed)} pairs")
        return scores

    def order(
        self,
        query: str,
        texts: Sequence[str],
        prior: Sequence[float] | None = None,
        top_n: int | None = None,
        *,
        show_progress: bool = False,
    ) -> list[Ranked]:
        """Return texts by position, best first, the first `top_n` of them; equal scores keep their order.

        Scores are the method's, or with `prior` scores `(n,)` of a first stage fused with those as in `rerank`.
        """
        check_text(query, "query")
        pairs = [(query, text) for text in checked_texts(texts)]
        scores: NDArray[np.floating]
        if prior is None:
            scores = self.score_pairs(pairs, show_progress=show_progress)
        elif len(prior) == len(pairs):
            scores = self._fused(self._scores(pairs, show_progress), prior)
        else:
            raise InputError(f"prior: {len(prior)} scores for {len(pairs)} texts")
        return [Ranked(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:top_n]]

    @overload
    def rerank(
        self, query: str, hits: Sequence[Hit], top_n: int | None = None, *, show_progress: bool = False
    ) -> list[Hit]: ...

    @overload
    def rerank(
        self,
        query: list[str] | tuple[str, ...],
        hits: Sequence[Sequence[Hit]],
        top_n: int | None = None,
        *,
        show_progress: bool = False,
    ) -> list[list[Hit]]: ...

    def rerank(
        self,
        query: str | Sequence[str],
        hits: Sequence[Any],
        top_n: int | None = None,
        *,
        show_progress: bool = False,
    ) -> list[Hit] | list[list[Hit]]:
        """Return a query's hits in their new order, the first `top_n` of them; a list of queries has a list of hits each.

        The score is `w * z(rerank) + (1 - w) * z(retrieval)`, each standardised over the hits; `parts` gains `rerank` and
        `retrieval`. The hits are always the same ones: those the method could not score count as its lowest, and equal
        scores keep their order.
        """
        if top_n is not None and (not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 0):
            raise InputError(f"top_n: {top_n!r} must be a whole number from 0")
        queries = checked_texts([query] if isinstance(query, str) else query, "query")
        lists = cast("list[Sequence[Hit]]", [hits] if isinstance(query, str) else list(hits))
        if len(queries) != len(lists):
            raise InputError(f"hits: {len(lists)} lists for {len(queries)} queries")
        for i, group in enumerate(lists):
            _check_hits(group, "hits" if isinstance(query, str) else f"hits[{i}]")
        pairs = [(text, hit.document.text) for text, group in zip(queries, lists, strict=True) for hit in group]
        scores = self._scores(pairs, show_progress)
        ordered, begin = [], 0
        for group in lists:
            ordered.append(self._ordered(group, scores[begin : begin + len(group)])[:top_n])
            begin += len(group)
        return ordered[0] if isinstance(query, str) else ordered

    def _scores(self, pairs: Sequence[tuple[str, str]], show_progress: bool) -> NDArray[np.float64]:
        """Return one score a pair, NaN where there is none."""
        if not pairs:
            return np.zeros(0)
        scores = np.asarray(self._scorer.score_pairs(pairs, show_progress=show_progress), dtype=np.float64)
        if scores.shape != (len(pairs),):
            logger.warning("the scorer gave %s scores for %d pairs; the order stays", scores.shape, len(pairs))
            return np.full(len(pairs), np.nan)
        lost = np.count_nonzero(~np.isfinite(scores))
        if lost:
            logger.warning("%d of %d scores are not finite; they count as the lowest", lost, len(pairs))
        return scores

    def _fused(self, scores: NDArray[np.float64], prior: Sequence[float]) -> NDArray[np.float64]:
        if not len(scores):
            return scores
        return convex(_finite(scores), _finite(np.array(prior, dtype=np.float64)), self._weight)

    def _ordered(self, hits: Sequence[Hit], scores: NDArray[np.float64]) -> list[Hit]:
        fused = self._fused(scores, [hit.score for hit in hits])
        ordered = []
        for rank, i in enumerate(np.argsort(-fused, kind="stable"), 1):
            parts = {**hits[i].parts, "retrieval": hits[i].score}
            if np.isfinite(scores[i]):
                parts["rerank"] = float(scores[i])
            ordered.append(replace(hits[i], score=float(fused[i]), rank=rank, parts=parts))
        return ordered


def _scorer(
    embedder: Embedder | None, method: str | PromptMethod | PairScorer, options: PromptOptions
) -> PromptScorer | PairScorer:
    if isinstance(method, str) and method not in METHODS:
        raise InputError(f"method: {method!r} must be one of {', '.join(METHODS)}, a method or a scorer")
    if isinstance(method, PairScorer) or method == "embedding":
        if options:
            raise InputError(f"{next(iter(options))}: only methods on a language model's logits have a prompt")
        if isinstance(method, PairScorer):
            return method
    if not isinstance(embedder, Embedder):
        kind = type(embedder).__name__
        raise InputError(f"embedder: a method needs the model of an Embedder, got {kind}; or use Reranker.from_pretrained")
    if method == "embedding":
        return EmbeddingScorer(embedder)
    chosen: Any = PROMPTED[method]() if isinstance(method, str) else method
    changed = {name: options[name] for name in ("prompt", "chat") if name in options}
    return PromptScorer(
        embedder.backbone.language_model(),
        replace(chosen, **changed) if changed else chosen,
        calibrate=options.get("calibrate", False),
        max_tokens=options.get("max_tokens", MAX_TOKENS),
    )


def _check_options(options: PromptOptions) -> None:
    unknown = sorted(options.keys() - PromptOptions.__annotations__.keys())
    if unknown:
        raise InputError(f"{unknown[0]}: unknown option; there are {', '.join(PromptOptions.__annotations__)}")
    for name in ("chat", "calibrate"):
        if not isinstance(options.get(name, False), bool):
            raise InputError(f"{name}: {options.get(name)!r} must be true or false")
    most = options.get("max_tokens", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"max_tokens: {most!r} must be a whole number from 1")


def _checked_pair(pair: object, name: str) -> tuple[str, str]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InputError(f"{name}: expected a query and a document, got {type(pair).__name__}")
    for text in pair:
        check_text(text, name)
    return pair[0], pair[1]


def _check_hits(hits: Sequence[object], name: str) -> None:
    for i, hit in enumerate(hits):
        if not isinstance(hit, Hit):
            raise InputError(f"{name}[{i}]: expected Hit, got {type(hit).__name__}; score(query, texts) takes texts")


def _finite(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores with the lowest finite one in place of what is not finite."""
    finite = np.isfinite(scores)
    return np.where(finite, scores, scores[finite].min() if finite.any() else 0.0)
