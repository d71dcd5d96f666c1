"""A client that a generator writes from the server's own description, used for all operations of a server.

The generator has an environment of its own in `.venv/generator` (`make test` installs it), since it needs an older typer.
"""

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.integrations.server.conftest import HOSTS, TEXTS
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.integrations.server import Settings, create_app

GENERATOR = Path(sys.prefix) / "generator" / "bin" / "openapi-python-client"
PACKAGE = "client_written_by_a_generator"

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason=f"there is no {GENERATOR}; make test installs it")


@pytest.fixture(scope="module")
def server(whole, folder, tmp_path_factory):
    app = create_app(
        whole, {"things": folder}, settings=Settings(data=tmp_path_factory.mktemp("data")), allowed_hosts=HOSTS
    )
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def package(server, tmp_path_factory):
    """Return the name of the generated package, which can be imported."""
    place = tmp_path_factory.mktemp("generated")
    (place / "openapi.json").write_text(server.get("/openapi.json").text)
    command = [GENERATOR, "generate", "--path", "openapi.json", "--meta", "none", "--output-path", PACKAGE]
    path = f"{GENERATOR.parent}{os.pathsep}{os.environ['PATH']}"  # where it finds its own ruff
    done = subprocess.run(command, cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("WARNING") == done.stderr.count("Unsupported content type application/x-ndjson") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        yield PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


class Generated:
    """The generated package with a client: its operations, and its models from JSON."""

    def __init__(self, package, server):
        self.package, self.used = package, set()
        self._client = self.module("").Client(base_url="http://testserver").set_httpx_client(server)

    def module(self, name):
        return importlib.import_module(f"{self.package}{name}")

    def new(self, model, **values):
        return getattr(self.module(".models"), model).from_dict(values)

    def call(self, operation, *arguments, **options):
        """Return status and parsed answer."""
        self.used.add(operation)
        answer = self.module(f".api.default.{operation}").sync_detailed(*arguments, client=self._client, **options)
        return int(answer.status_code), answer.parsed

    def __call__(self, operation, *arguments, **options):
        """Return the parsed answer, which must be one of success."""
        status, parsed = self.call(operation, *arguments, **options)
        assert status == 200, parsed
        return parsed


def test_every_operation_of_a_generated_client_gives_what_the_server_says(package, server, whole):
    ask = Generated(package, server)
    assert ask("health").status == "ok"
    assert ask.call("prometheus")[0] == 200
    assert len(ask("list_models").data) == 1
    assert [index.name for index in ask("list_indexes").data] == ["things"]
    assert ask("read_access").write is True

    status, made = ask.call("create_index", body=ask.new("NewIndexRequest", name="notes", kind="flat"))
    assert (status, made.name, made.documents) == (201, "notes", 0)
    documents = [{"id": f"n{i}", "text": text, "metadata": {"number": i}} for i, text in enumerate(TEXTS)]
    body = ask.new("AddDocumentsJsonBody", documents=documents)
    assert ask("add_documents", "notes", body=body, idempotency_key="k1").ids == [one["id"] for one in documents]
    file = ask.module(".types").File(io.BytesIO(b"A file about rivers."), "rivers.txt")
    assert ask("add_files", "notes", body=ask.module(".models").AddFilesBody(files=[file])).added == 1
    status, job = ask.call("add_documents", "notes", body=body, wait=False)
    assert status == 202
    assert ask("read_job", job.id).id == job.id
    assert ask("describe_index", "notes").documents == len(TEXTS) + 1
    page = ask("read_documents", "notes", where='{"number": {"$lt": 3}}', limit=2).documents
    assert [(one.id, one.text, one.metadata.to_dict()) for one in page] == [
        ("n0", TEXTS[0], {"number": 0}),
        ("n1", TEXTS[1], {"number": 1}),
    ]

    found = ask("search", body=ask.new("SearchRequest", query=TEXTS[4], index="notes", k=3)).hits
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert found[0].id == "n4"
    embedded = ask("embed", body=ask.new("EmbeddingsRequest", input=TEXTS[:2])).data
    assert np.allclose([one.embedding for one in embedded], UnitEmbedder.of(whole).embed_documents(TEXTS[:2]), atol=1e-5)
    ranked = ask("rerank", body=ask.new("RerankRequest", query=TEXTS[0], documents=TEXTS[:3], top_n=2)).results
    assert len(ranked) == 2
    turns = [{"role": "user", "content": "What sings?"}]
    chat = ask("chat", body=ask.new("ChatRequest", messages=turns, max_tokens=3, index="things"))
    assert chat.choices[0].message.role == "assistant"
    answer = ask("answer", body=ask.new("AnswerRequest", query="What sings?", index="things", max_tokens=3))
    assert answer.question == "What sings?"

    assert ask("remove_documents", "notes", ids=["n0", "n1", "missing"]).removed == 2
    assert ask.call("remove_index", "notes")[0] == 204
    status, missing = ask.call("describe_index", "notes")
    assert (status, missing.error.code) == (404, 404)

    operations = Path(ask.module(".api.default").__file__).parent.glob("[a-z]*.py")
    assert ask.used == {file.stem for file in operations}
