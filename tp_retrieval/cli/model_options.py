"""The options by which commands name a model and say how it is loaded, written once.

@with_model_options
def embed(file: Path, model: ModelOptions, recipe: RecipeOption = None) -> None:
    embedder = model.embedder(recipe)
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import tp_retrieval

_BITS: Mapping[str, Mapping[str, object]] = {
    "8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
"""Configurations of quantisation as JSON, which an index can keep."""


@dataclass(frozen=True)
class LoadingOptions:
    """What `--device`, `--dtype`, `--load-in` and `--model-arg` say of how a model is loaded."""

    device: Annotated[
        str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1, mps; by default the fastest there is.")
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type the model computes in; auto is bfloat16 where it is faster than float32."),
    ] = "auto"
    load_in: Annotated[
        Literal["8bit", "4bit"] | None, typer.Option(help="Quantise the weights when they are loaded, by bitsandbytes.")
    ] = None
    model_arg: Annotated[
        list[str] | None,
        typer.Option(help="Further argument for transformers, KEY=VALUE, such as device_map=auto. May be repeated."),
    ] = None

    @property
    def model_kwargs(self) -> dict[str, Any]:
        """The arguments for transformers; raise `InputError` for one that is not KEY=VALUE."""
        kwargs: dict[str, Any] = {} if self.load_in is None else {"quantization_config": dict(_BITS[self.load_in])}
        for argument in self.model_arg or []:
            name, separator, value = argument.partition("=")
            if not separator or not name.isidentifier():
                raise tp_retrieval.InputError(f"--model-arg: {argument!r} must be KEY=VALUE, such as device_map=auto")
            if name in kwargs:
                raise tp_retrieval.InputError(f"--model-arg: {name} is given twice")
            try:
                kwargs[name] = json.loads(value)
            except ValueError:
                kwargs[name] = value
        return kwargs

    def open_index(self, path: Path) -> tp_retrieval.Index:
        """Open an index whose model is loaded as it was when the index was made, but for what the options say."""
        dtype = None if self.dtype == "auto" else self.dtype
        return tp_retrieval.Index.open(path, device=self.device, dtype=dtype, model_kwargs=self.model_kwargs)


@dataclass(frozen=True)
class ModelOptions(LoadingOptions):
    """What `--model` says, and how it is loaded."""

    model: Annotated[str | None, typer.Option(help="Hub id, folder or .gguf file; by default the embedded model.")] = field(
        default=None, kw_only=True
    )

    def embedder(
        self, recipe: str | Path | tp_retrieval.Recipe | None = None, *, whole: bool = False
    ) -> tp_retrieval.Embedder:
        """Load the model with a recipe."""
        return tp_retrieval.Embedder.from_pretrained(self.model, recipe=recipe, whole=whole, **self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """How the model is loaded, as arguments of `from_pretrained`."""
        return {"device": self.device, "dtype": self.dtype, "model_kwargs": self.model_kwargs}


DEFAULT_MODEL = ModelOptions()
"""The model where no option names or places one."""
AS_STORED = LoadingOptions()
"""The model of an index as it was when the index was made."""


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of its parameter of type `ModelOptions` or `LoadingOptions`."""
    signature = inspect.signature(command, eval_str=True)
    (chosen,) = (
        p
        for p in signature.parameters.values()
        if inspect.isclass(p.annotation) and issubclass(p.annotation, LoadingOptions)
    )
    of_model = inspect.signature(chosen.annotation, eval_str=True).parameters
    parameters = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
        for option in (of_model.values() if parameter is chosen else [parameter])
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = chosen.annotation(**{name: values.pop(name) for name in of_model})
        command(**{chosen.name: options}, **values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
