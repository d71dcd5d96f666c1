"""The counters of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server, apart from those of any other in the process; `paths` get a label each."""

    def __init__(self, paths: Collection[str] = ()) -> None:
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        prefix = "tp_retrieval"
        self._requests = Counter(f"{prefix}_requests", "Requests answered", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            f"{prefix}_request_seconds", "Time to answer", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self._tokens = Counter(f"{prefix}_tokens", "Tokens of texts taken in", ["path"], registry=self._registry)
        self._items = Histogram(
            f"{prefix}_step_items",
            "Texts that the model read together in a step",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self._registry,
        )
        self._step = Histogram(f"{prefix}_step_seconds", "Time of a step", buckets=_SECONDS, registry=self._registry)
        self._waiting = Gauge(f"{prefix}_waiting_tokens", "Tokens that wait for the model", registry=self._registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; unknown paths have one label, so that no client makes the page grow."""
        label = path if path in self._paths else "other"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def tokens(self, path: str, count: int) -> None:
        """Count tokens of texts."""
        self._tokens.labels(path).inc(count)

    def step(self, items: int, seconds: float) -> None:
        """Count a step of the batcher."""
        self._items.observe(items)
        self._step.observe(seconds)

    def watch(self, waiting: Callable[[], float]) -> None:
        """Ask for the tokens that wait whenever the page is read."""
        self._waiting.set_function(waiting)

    def page(self) -> bytes:
        """Return all in Prometheus's text format."""
        return generate_latest(self._registry)
