"""The results that there are: which benchmark measures each, and which code its figures depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PACKAGE = "tp_retrieval"
_READING = (  # text -> raw vectors
    f"{_PACKAGE}/embedding/template.py",
    f"{_PACKAGE}/embedding/forward/forward.py",
    f"{_PACKAGE}/embedding/forward/prepending.py",
    f"{_PACKAGE}/embedding/forward/readout.py",
    f"{_PACKAGE}/embedding/forward/tokens.py",
)
_MAPS = (f"{_PACKAGE}/embedding/maps/affine.py", f"{_PACKAGE}/embedding/maps/within.py")
_SMALL = f"{_PACKAGE}/embedding/recipes/SmolLM2-135M-Instruct"
_GEMMA = f"{_PACKAGE}/embedding/recipes/gemma-3-270m"
_METRICS = (f"{_PACKAGE}/evaluation/metrics.py", f"{_PACKAGE}/evaluation/evaluate.py", "benchmarks/common.py")
_SEARCH = (f"{_PACKAGE}/indexing/search/fusion.py", f"{_PACKAGE}/indexing/search/query.py")
_RERANKING = (f"{_PACKAGE}/reranking/methods.py", f"{_PACKAGE}/reranking/prompted.py", f"{_PACKAGE}/reranking/reranker.py")
_ABLATION = (
    f"{_PACKAGE}/evaluation/ablate.py",
    f"{_PACKAGE}/evaluation/tuning/prompt_candidates.py",
    f"{_PACKAGE}/evaluation/objectives",
)
_QUALITY = (*_READING, *_MAPS, *_METRICS, *_SEARCH, *_RERANKING)
_STORE = tuple(
    f"{_PACKAGE}/indexing/{name}.py"
    for name in ("search/engine", "vectors/kinds", "vectors/faiss_index", "vectors/rounded_rows", "storage/documents")
)
_RUNNING = (*_READING, f"{_PACKAGE}/embedding/forward/batching.py", f"{_PACKAGE}/embedding/embedder.py")
_ADAPTERS = (
    "integrations/langchain/vector_store.py",
    "integrations/langchain/embeddings.py",
    "integrations/llama_index/embedding.py",
    "integrations/sentence_transformers.py",
)
_SERVING = ("integrations/server/service.py", "integrations/server/batcher.py", f"{_PACKAGE}/embedding/forward/batching.py")


def _recipes(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.json" for name in ("retrieval-fast", "retrieval-balanced", "retrieval"))


@dataclass(frozen=True)
class Benchmark:
    """What measures a result: a module with its arguments, and the code that the figures depend on."""

    module: str
    """`benchmarks.MODULE` measures, `benchmarks.tables.MODULE` renders."""
    measures: tuple[str, ...]
    """Files, and folders of Python files, besides the benchmark's own."""
    arguments: tuple[str, ...] = ()
    model: str | None = None
    """What `--model` has to name; None for the embedded model."""


def _open_questions(suffix: str, model: str | None) -> dict[str, Benchmark]:
    """Return the benchmarks of the open questions, on a model."""
    common = (*_READING, *_METRICS, "benchmarks/open_questions/common.py")
    masks = (*common, *_MAPS, f"{_PACKAGE}/embedding/forward/bidirectional.py", "benchmarks/open_questions/scopes.py")
    measures = {
        "scopes": common,
        "complexity": (*common, "benchmarks/open_questions/scopes.py"),
        "languages": (*common, "benchmarks/open_questions/scopes.py"),
        "masks": masks,
        "attention": (
            *(*common, f"{_PACKAGE}/embedding/forward/bidirectional.py"),
            *("benchmarks/open_questions/scopes.py", "benchmarks/open_questions/complexity.py"),
        ),
        "untouched": common,
    }
    return {f"{name}{suffix}": Benchmark(f"open_questions.{name}", code, model=model) for name, code in measures.items()}


BENCHMARKS: Mapping[str, Benchmark] = {
    "quality": Benchmark("quality", (*_QUALITY, *_recipes(_SMALL)), ("--recipes", "retrieval-fast", "retrieval-balanced")),
    "quality-retrieval": Benchmark("quality", (*_QUALITY, *_recipes(_SMALL)), ("--recipes", "retrieval", "--rerank")),
    "quality-gemma": Benchmark("quality", (*_QUALITY, *_recipes(_GEMMA)), ("--rerank",), "gemma-3-270m"),
    "similarity": Benchmark("similarity", (*_READING, *_MAPS, *_METRICS, f"{_SMALL}/sts.json")),
    "similarity-gemma": Benchmark("similarity", (*_READING, *_MAPS, *_METRICS, f"{_GEMMA}/sts.json"), (), "gemma-3-270m"),
    "ablation-sts": Benchmark("ablation", (*_READING, *_METRICS, *_ABLATION), ("--task", "sts", "--items", "600")),
    "ablation-sts-gemma": Benchmark(
        "ablation", (*_READING, *_METRICS, *_ABLATION), ("--task", "sts", "--items", "300"), "gemma-3-270m"
    ),
    "ablation-retrieval": Benchmark(
        "ablation", (*_READING, *_MAPS, *_METRICS, *_ABLATION), ("--task", "retrieval", "--items", "40")
    ),
    "ablation-retrieval-gemma": Benchmark(
        "ablation", (*_READING, *_MAPS, *_METRICS, *_ABLATION), ("--task", "retrieval", "--items", "30"), "gemma-3-270m"
    ),
    "maps": Benchmark("maps", (*_READING, *_MAPS, *_METRICS, f"{_SMALL}/retrieval.json")),
    "reranking": Benchmark("reranking", (*_QUALITY, f"{_SMALL}/retrieval-balanced.json")),
    **_open_questions("", None),
    **_open_questions("-gemma", "gemma-3-270m"),
    "exits": Benchmark("exits", (*_READING, *_MAPS, *_METRICS, f"{_SMALL}/retrieval.json")),
    "exits-gemma": Benchmark("exits", (*_READING, *_MAPS, *_METRICS, f"{_GEMMA}/retrieval.json"), (), "gemma-3-270m"),
    "prepending": Benchmark("prepending", (*_READING, *_MAPS, *_METRICS)),
    "prepending-gemma": Benchmark("prepending", (*_READING, *_MAPS, *_METRICS), ("--sets", "python-faq"), "gemma-3-270m"),
    "reranking-speed": Benchmark("reranking_speed", (*_RERANKING, *_RUNNING, "benchmarks/speed.py")),
    "speed": Benchmark("speed", _RUNNING),
    "adapters": Benchmark("adapters", _ADAPTERS),
    "kinds": Benchmark("kinds", (*_READING, *_MAPS, *_METRICS, *_SEARCH, f"{_PACKAGE}/indexing/vectors")),
    "scale": Benchmark("scale", _STORE),
    "peers": Benchmark("peers", _STORE),
    "relevance": Benchmark("relevance", (*_READING, *_MAPS, *_METRICS, f"{_PACKAGE}/indexing/search/relevance.py")),
    "serving": Benchmark("server", _SERVING),
    "serving-load": Benchmark("server_load", (*_SERVING, *_STORE)),
}
