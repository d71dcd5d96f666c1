"""Print the public surface as JSON: python -m tests.golden.public > tests/golden/public.json, at each release."""

import importlib
import inspect
import json

import typer

import tp_retrieval
from tp_retrieval.cli.main import app

ADAPTERS = ("langchain", "llama_index", "mcp", "sentence_transformers", "server", "ray")


def parameters(value):
    """Return the names of parameters; `*args` and `**options` may become named ones."""
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in inspect.signature(value).parameters.values() if p.name != "self" and p.kind not in various]


def methods(cls):
    """Return the public methods that our own classes define, with their parameters, and properties with None."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("tp_retrieval")]
    names = sorted({name for base in ours for name in vars(base) if not name.startswith("_") or name == "__init__"})
    values = {name: getattr(cls, name) for name in names if hasattr(cls, name) and not name.startswith("model_")}
    return {name: parameters(value) if callable(value) else None for name, value in values.items()}


def surface(module, names):
    values = {name: getattr(module, name) for name in sorted(names)}
    return {
        name: methods(value) if inspect.isclass(value) else parameters(value)
        for name, value in values.items()
        if callable(value)
    }


def commands(command, path=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), sorted(option for parameter in command.params for option in parameter.opts)


def public():
    found = {"tp_retrieval": surface(tp_retrieval, tp_retrieval.__all__)}
    for name in ADAPTERS:
        module = importlib.import_module(f"tp_retrieval.integrations.{name}")
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
        found[name] = surface(module, getattr(module, "__all__", own))
    return found | {"commands": dict(commands(typer.main.get_command(app)))}


if __name__ == "__main__":
    print(json.dumps(public(), indent=1, sort_keys=True))
