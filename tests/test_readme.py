"""README: every block of Python runs, in order, and every command line is one that the program takes."""

import functools
import re
import shlex
from pathlib import Path

import openai
import pytest
import typer
from fastapi.testclient import TestClient
from langchain_openai import OpenAIEmbeddings
from llama_index.core import VectorStoreIndex
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from tp_retrieval import Document, Index
from tp_retrieval.cli.main import app
from tp_retrieval.integrations.server import create_app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TEXTS = ["Whales breathe air.", "To roll back a release, press undo.", "Granite is a hard rock."]


def blocks():
    """Return the blocks of Python by the section that they stand in."""
    parts = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
    sections = zip(["top", *parts[1::2]], parts[::2], strict=True)
    return [(title, code) for title, text in sections for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.fixture
def names(tiny_folder, tmp_path, monkeypatch):
    """The names that the blocks use and do not make."""
    monkeypatch.chdir(tmp_path)
    folder = tiny_folder("llama")
    return {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "texts": TEXTS,
        "passages": TEXTS,
        "questions": ["Which animal breathes air?"],
        "question": "Which animal breathes air?",
        "query": "how do I roll back?",
        "VectorStoreIndex": VectorStoreIndex,
        "SentenceTransformer": SentenceTransformer,
        "Normalize": Normalize,
        "OpenAIEmbeddings": OpenAIEmbeddings,
        "openai": openai,
        "_folder": str(folder),
    }


def opened(names, place):
    """Return an open index for the blocks that search, with documents that they find."""
    if not (place / "my-index").exists():
        Index.create("my-index", names["embedder"]).close()
    index = Index.open("my-index", names["embedder"])
    index.add(
        [Document(text, {"product": "api", "year": 2024, "tags": ["beta"]}, "abc"[i]) for i, text in enumerate(TEXTS)]
    )
    return index


@pytest.mark.usefixtures("closed_loop")
def test_every_block_of_python_runs(names, tmp_path, monkeypatch, embedder):
    served = TestClient(create_app(embedder, {}), base_url="http://localhost:8000")
    monkeypatch.setattr(openai, "OpenAI", functools.partial(openai.OpenAI, http_client=served))
    served_name, found = served.get("/v1/models").json()["data"][0]["id"], blocks()
    assert len(found) >= 8
    for number, (title, code) in enumerate(found):
        if "embedder" in names and "Index.create" not in code and "VectorStore" not in code:
            names["index"] = opened(names, Path.cwd())
            names["hits"] = names["index"].search(names["query"], 3)
            names["raw_vector"] = names["embedder"].embed_queries([names["query"]])[0]
        if "VectorStore" in code:  # another model, so another folder
            (tmp_path / str(number)).mkdir()
            monkeypatch.chdir(tmp_path / str(number))
        code = code.replace("path/to/your-llm", names["_folder"]).replace("SmolLM2-135M-Instruct.Q4_1", served_name)
        exec(compile(code, f"README, {title}", "exec"), names)
        for name in ("index", "store"):
            if hasattr(names.get(name), "close"):
                names.pop(name).close()
    assert names["answer"].text


COMMANDS = [
    line
    for line in re.findall(r"^    (?:.*&& )?(tp-retrieval .+?)(?:\s+# .*)?$", README, re.MULTILINE)
    + re.findall(r"`(tp-retrieval [a-z][^`]*)`", README)
]


@pytest.mark.parametrize("line", sorted({*COMMANDS}))
def test_every_command_line_is_one_that_the_program_takes(line):
    line = re.sub(r"\[(--[^\]]+)\]", r"\1", line).replace(" …", "")  # what may be left out
    _, *words = shlex.split(line)
    command = typer.main.get_command(app)
    while getattr(command, "commands", {}):
        name, *words = words
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert [word for word in used if word not in options] == []


def test_there_are_commands_to_check():
    assert len({*COMMANDS}) > 15
