"""A recipe: everything between text and vector, as data that is validated when it is created."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, cast

from tp_retrieval.embedding.maps.affine import NAMES, is_map
from tp_retrieval.embedding.maps.within import FEWEST, LARGEST_SAMPLE, is_sample, whole_first
from tp_retrieval.embedding.template import SLOT, Template
from tp_retrieval.errors import RecipeError

DEFAULT_RECIPE = "retrieval-balanced"
"""The recipe of an embedder, and so of an index, where none is named."""

FORMAT = 1
_RECIPES = resources.files("tp_retrieval.embedding") / "recipes"
PREPEND_KINDS = ("tp", "tp-mean", "htp", "echo", "bidirectional")
READOUTS = ("last", "mean", "last+mean")

Readout = Literal["last", "mean", "last+mean"]
PrependKind = Literal["tp", "tp-mean", "htp", "echo", "bidirectional"]


@dataclass(frozen=True)
class Prepend:
    """The contents of the slot.

    Before blocks `start <= i < stop` (from 0) `tp` copies the last token into it, `tp-mean` the mean of the row. `htp`
    puts a slot for every sentence there, and another before every sentence, and copies the sentence's last token into
    both (arXiv 2511.14868). `echo` is no rewiring and has no scope: the text stands in the slot, and once more where it
    stands anyway (Springer et al., ICLR 2025, arXiv 2402.15449). `bidirectional` fills no slot: it
    marks the place from which tokens see each other in both directions in the blocks of the scope, to compare with.
    """

    kind: PrependKind
    start: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        _require(self.kind in PREPEND_KINDS, "prepend.kind", self.kind, f"one of {', '.join(PREPEND_KINDS)}")
        if self.kind == "echo":
            _require((self.start, self.stop) == (0, 0), "prepend.start", self.start, "left out: echo has no scope")
            return
        _require(_is_int(self.start) and self.start >= 0, "prepend.start", self.start, "a block number from 0")
        _require(_is_int(self.stop), "prepend.stop", self.stop, "a block number")
        _require(self.start < self.stop, "prepend.stop", self.stop, f"more than prepend.start, {self.start}")


@dataclass(frozen=True)
class View:
    """One readout of a forward pass.

    `exit` counts the blocks that ran: 0 is the input embeddings, -1 all but the last block, None all blocks and the
    final norm. `postprocess` is the map that an index fits on its corpus; `weight` is the view's share of the cosine.
    With `sample` an index reads the view of so many of its documents, and predicts it for the others from the first view.
    """

    exit: int | None
    readout: Readout = "last"
    postprocess: str = "none"
    weight: float = 1.0
    sample: int | None = None

    def __post_init__(self) -> None:
        valid = self.exit is None or (_is_int(self.exit) and self.exit >= -1)
        _require(valid, "views.exit", self.exit, "a number of blocks from 0, -1 or null")
        _require(self.readout in READOUTS, "views.readout", self.readout, f"one of {', '.join(READOUTS)}")
        _require(is_map(self.postprocess), "views.postprocess", self.postprocess, NAMES)
        valid = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        _require(valid and 0 < self.weight < float("inf"), "views.weight", self.weight, "a positive number")
        expected = f"a number of documents from {FEWEST} to {LARGEST_SAMPLE}, or null"
        _require(self.sample is None or is_sample(self.sample), "views.sample", self.sample, expected)

    def to_dict(self) -> dict[str, Any]:
        """Return the view as its JSON object."""
        return {name: value for name, value in vars(self).items() if name != "sample" or value is not None}


@dataclass(frozen=True)
class Recipe:
    """The templates, rewiring and views by which queries and documents become vectors.

    `query` and `document` are templates (or strings, or several of either, whose vectors are averaged view by view).
    `dense_weight` is the share of the dense score in hybrid search, None to leave it to the index.
    Raises `RecipeError` naming field and value when the parts contradict each other.
    """

    query: tuple[Template, ...]
    document: tuple[Template, ...]
    views: tuple[View, ...]
    prepend: Prepend | None = None
    clean: bool = True
    max_tokens: int = 512
    dense_weight: float | None = None

    def __init__(
        self,
        query: str | Template | Sequence[str | Template],
        document: str | Template | Sequence[str | Template],
        views: Sequence[View],
        prepend: Prepend | None = None,
        clean: bool = True,
        max_tokens: int = 512,
        dense_weight: float | None = None,
    ) -> None:
        values = {
            "query": _templates("query", query),
            "document": _templates("document", document),
            "views": tuple(views),
            "prepend": prepend,
            "clean": clean,
            "max_tokens": max_tokens,
            "dense_weight": dense_weight,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        _require(bool(self.views), "views", [], "at least one view")
        samples = [view.sample for view in self.views]
        _require(whole_first(samples), "views.sample", samples, "null for the first views")
        _require(isinstance(self.clean, bool), "clean", self.clean, "true or false")
        _require(_is_int(self.max_tokens) and self.max_tokens > 0, "max_tokens", self.max_tokens, "a positive number")
        weight = self.dense_weight
        valid = weight is None or (isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 <= weight <= 1)
        _require(valid, "dense_weight", weight, "from 0 to 1, or null")
        templates = self.query + self.document
        slotted = [t.source for t in templates if t.has_slot]
        if self.prepend is None:
            _require(not slotted, "prepend", None, f"set, because the template {slotted[:1]} has the slot {SLOT}")
            return
        _require(bool(slotted), "prepend", _prepend_json(self.prepend), f"null, because no template has the slot {SLOT}")
        if all(view.exit is not None and view.exit >= 0 for view in self.views):
            self._check_stop(max(view.exit or 0 for view in self.views))

    def _check_stop(self, deepest: int) -> None:
        if self.prepend is not None:
            stop = self.prepend.stop
            _require(stop <= deepest, "prepend.stop", stop, f"at most the deepest exit, {deepest}")

    def exits(self, n_blocks: int) -> tuple[int | None, ...]:
        """Return each view's exit in a model of `n_blocks`, None for the final norm; `RecipeError` where too shallow."""
        exits = []
        for view in self.views:
            exits.append(n_blocks - 1 if view.exit == -1 else view.exit)
            _require((exits[-1] or 0) <= n_blocks, "views.exit", view.exit, f"at most {n_blocks}, the model's blocks")
        self._check_stop(max(n_blocks if count is None else count for count in exits))
        return tuple(exits)

    def depth(self, n_blocks: int) -> int:
        """Return how many blocks of a model of `n_blocks` the recipe runs."""
        return max(n_blocks if count is None else count for count in self.exits(n_blocks))

    def templates(self, role: Literal["query", "document"]) -> tuple[Template, ...]:
        """Return the templates of a role."""
        return self.query if role == "query" else self.document

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read a recipe from parsed JSON; an unknown or missing key raises `RecipeError`."""
        if not isinstance(data, Mapping):
            raise RecipeError(f"recipe: expected an object, got {type(data).__name__}")
        optional = {"clean", "prepend", "max_tokens", "dense_weight"}
        fields = _keys(data, "", {"format", "query", "document", "views"}, optional)
        _require(fields.pop("format") == FORMAT, "format", data["format"], f"{FORMAT}")
        if not isinstance(fields["views"], list):
            raise RecipeError(f"views: {fields['views']!r} must be a list of objects")
        fields["views"] = [
            View(**_keys(view, "views.", {"exit"}, {"readout", "postprocess", "weight", "sample"}))
            for view in fields["views"]
        ]
        if fields.get("prepend") is not None:
            scope = {"start", "stop"}
            echo = isinstance(fields["prepend"], Mapping) and fields["prepend"].get("kind") == "echo"
            required, optional = ({"kind"}, scope) if echo else ({"kind", *scope}, set())
            fields["prepend"] = Prepend(**_keys(fields["prepend"], "prepend.", required, optional))
        return cls(**fields)

    @classmethod
    def load(cls, name: str | Path, model: str = "") -> Recipe:
        """Read a recipe file, or a named recipe; a name measured for `model` wins over the general one."""
        path = Path(name)
        if path.suffix != ".json" and len(path.parts) == 1:
            return cls._named(str(name), model)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe: can't read {path} ({error})") from error
        try:
            return cls.from_dict(json.loads(text))
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"recipe: {path} is not JSON ({error})") from error

    @classmethod
    def is_measured(cls, name: str, model: str) -> bool:
        """Return whether a named recipe was measured for a model, and is not the general one."""
        return any((folder / f"{name}.json").is_file() for folder in _measured_places(model))

    @classmethod
    def _named(cls, name: str, model: str) -> Recipe:
        for folder in (*_measured_places(model), _RECIPES):
            file = folder / f"{name}.json"
            if file.is_file():
                return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        names = ", ".join(sorted(entry.name[:-5] for entry in _RECIPES.iterdir() if entry.name.endswith(".json")))
        raise RecipeError(f"recipe: no recipe is called {name!r}; known are {names}, or give a path to a .json file")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as its JSON object; `from_dict` returns an equal recipe."""
        return {
            "format": FORMAT,
            "query": _sources(self.query),
            "document": _sources(self.document),
            "clean": self.clean,
            "prepend": _prepend_json(self.prepend),
            "views": [view.to_dict() for view in self.views],
            "max_tokens": self.max_tokens,
            **({} if self.dense_weight is None else {"dense_weight": self.dense_weight}),
        }

    def to_json(self) -> str:
        """Return the recipe as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def raw(self) -> Recipe:
        """Return the recipe without maps, weights and samples; equal raw recipes have equal raw vectors."""
        views = tuple(View(view.exit, view.readout) for view in self.views)
        return replace(self, views=views, dense_weight=None)


def _measured_places(model: str) -> list[Traversable]:
    """Return the folders of recipes that were measured for a model, by its name."""
    name = Path(model).name.lower()
    return [entry for entry in _RECIPES.iterdir() if entry.is_dir() and entry.name.lower() in name]


def _templates(field: str, value: object) -> tuple[Template, ...]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    _require(bool(items), field, value, "a template or a list of templates")
    try:
        return tuple(item if isinstance(item, Template) else Template(cast("str", item)) for item in items)
    except RecipeError as error:
        raise RecipeError(f"{field}: {error}") from error


def _sources(templates: tuple[Template, ...]) -> str | list[str]:
    sources = [template.source for template in templates]
    return sources[0] if len(sources) == 1 else sources


def _prepend_json(prepend: Prepend | None) -> dict[str, Any] | None:
    if prepend is None:
        return None
    return {"kind": "echo"} if prepend.kind == "echo" else vars(prepend).copy()


def _keys(data: object, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where.rstrip('.') or 'recipe'}: {data!r} must be an object")
    unknown = sorted(set(data) - required - optional)
    missing = sorted(required - set(data))
    if unknown:
        raise RecipeError(f"{where}{unknown[0]}: unknown key; known are {', '.join(sorted(required | optional))}")
    if missing:
        raise RecipeError(f"{where}{missing[0]}: missing")
    return dict(data)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise RecipeError(f"{field}: {json.dumps(value, default=str)} must be {expected}")
