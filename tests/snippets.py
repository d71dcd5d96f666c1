"""README and the pages of the manual: their blocks of Python, their command lines, their links, and what the blocks use."""

import ast
import builtins
import functools
import re
import shlex
from pathlib import Path

import openai
import typer
from fastapi.testclient import TestClient
from langchain_openai import OpenAIEmbeddings
from llama_index.core import VectorStoreIndex
from markdown.extensions.toc import slugify
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.golden import public
from tp_retrieval import Client, Document, Embedder, Index
from tp_retrieval.cli.main import app as program
from tp_retrieval.integrations.server import Settings, create_app

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
}
TEXTS = ["Whales breathe air.", "To roll back a release, press undo.", "Granite is a hard rock."]


def blocks(text):
    """Return the blocks of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines(text):
    """Return the command lines of `tp-retrieval` in a page: of indented and fenced lines, and between backticks."""
    lines = re.findall(r"^ {4}(?:\$ )?(?:.*&& )?(tp-retrieval .+?)(?:\s+# .*)?$", text, re.MULTILINE)
    for fence in re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines += re.findall(r"^(?:\$ )?(tp-retrieval .+?)(?:\s+# .*)?$", fence, re.MULTILINE)
    return sorted({*lines, *re.findall(r"`(tp-retrieval [a-z][^`\n]*)`", text)})


def unknown_options(line):
    """Return the options of a command line that its command does not have. Raises KeyError for no command."""
    line = re.sub(r"\[(--[^\]]+)\]", r"\1", line).replace("…", "")  # what may be left out
    _, *words = shlex.split(line)
    command = typer.main.get_command(program)
    while getattr(command, "commands", {}) and words:
        name, *words = words
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options]


def commands():
    """Return the options of every command by its name."""
    return dict(public.commands(typer.main.get_command(program)))


def broken_links(text, folder):
    """Return the links to files and anchors that are not there, of a page in a folder."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in link and not _leads(text, folder, link)]


def _leads(text, folder, link):
    path, _, anchor = link.partition("#")
    if path and not (folder / path).exists():
        return False
    target = (folder / path).read_text(encoding="utf-8") if path and anchor else text
    return not anchor or anchor in {
        slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", title), "-") for title in re.findall(r"^#+ (.+)$", target, re.M)
    }


def free_names(code):
    """Return the names that a block uses and does not make."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    imported = [
        alias for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    made |= {(alias.asname or alias.name).partition(".")[0] for alias in imported}
    return {node.id for node in names} - made - {*dir(builtins)}


def _in_process(init, app):
    """Return what makes a client whose requests a server in this process answers."""

    def connected(client, *args, **options):
        init(client, *args, **options)
        client._http.close()
        client._http = TestClient(app, base_url="http://localhost:8000")

    return connected


class Runner:
    """Runs the blocks of a page in order: names stay, and each has a folder of its own, with an index where it uses one."""

    def __init__(self, model_folder, place, monkeypatch):
        self.model_folder, self.place, self.monkeypatch = str(model_folder), place, monkeypatch
        embedder = Embedder.from_pretrained(model_folder, recipe=tiny.RECIPE, dtype="float32", device="cpu", whole=True)
        app = create_app(embedder, {}, settings=Settings(data=place / "served"))
        served = TestClient(app, base_url="http://localhost:8000")
        self.served_name = served.get("/v1/models").json()["data"][0]["id"]
        monkeypatch.setattr(openai, "OpenAI", functools.partial(openai.OpenAI, http_client=served))
        monkeypatch.setattr(Client, "__init__", _in_process(Client.__init__, app))
        self.names = {
            "model": AutoModelForCausalLM.from_pretrained(model_folder),
            "tokenizer": AutoTokenizer.from_pretrained(model_folder),
            "embedder": embedder,
            "documents": [Document(text) for text in TEXTS],
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
        }

    def run(self, page, text):
        for number, code in enumerate(blocks(text)):
            folder = self.place / f"{page.replace('/', '-')}-{number}"
            folder.mkdir()
            self.monkeypatch.chdir(folder)
            self._run(f"{page}, block {number + 1}", code)

    def _run(self, where, code):
        uses = free_names(code)
        if uses & {"index", "hits"} or ('"my-index"' in code and not re.search(r"(create|from_texts)\(", code)):
            Index.create("my-index", self.names["embedder"]).close()
            with Index.open("my-index", self.names["embedder"]) as index:
                metadata = {"product": "api", "year": 2024, "tags": ["beta"]}
                index.add([Document(text, metadata, name) for text, name in zip(TEXTS, "abc", strict=True)])
        if uses & {"index", "hits"}:
            self.names["index"] = Index.open("my-index", self.names["embedder"])
            self.names["hits"] = self.names["index"].search(self.names["query"], 3)
            self.names["raw_vector"] = self.names["embedder"].embed_queries([self.names["query"]])[0]
        code = code.replace("path/to/your-llm", self.model_folder).replace("SmolLM2-135M-Instruct.Q4_1", self.served_name)
        code = code.replace("nomic-embed-text", self.served_name)
        exec(compile(code, where, "exec"), self.names)
        for name in ("index", "store"):
            if hasattr(self.names.get(name), "close"):
                self.names.pop(name).close()
