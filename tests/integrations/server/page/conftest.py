"""A Chromium that drives the page of a real server; without Playwright and a Chromium these tests are skipped."""

import shutil
import subprocess
import sys

import pytest

from tp_retrieval import Document, Index, index_files

_SERVE = """
import sys
from pathlib import Path
from tests import tiny
from tp_retrieval import Embedder
from tp_retrieval.integrations.server import ApiKey, Settings, create_app, listen
model, index, *keyed = sys.argv[1:]
keys = [ApiKey("reader-key", write=False), ApiKey("writer-key")] if keyed else []
settings = Settings(method=None) if keyed else Settings()
embedder = Embedder.from_pretrained(model, recipe=tiny.RECIPE, dtype="float32", device="cpu", whole=not keyed)
app = create_app(embedder, {"tools": Path(index)}, settings=settings, api_keys=keys)
listen(app, "127.0.0.1", 0, started=lambda name: print(name, flush=True))
"""
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")

TOOLS = "# Tools\n\nA hammer drives nails.\n\nA saw cuts wood.\n\nA plane smooths boards, and a drill makes holes.\n"
HOSTILE = """A saw is here. <script>window.hacked = 1</script><img src="/x.png" onerror="window.hacked = 2">

![picture](http://evil.example/a.png) ![inline](data:image/png;base64,AAAA) <iframe src="http://evil.example"></iframe>
<svg onload="window.hacked = 3"> <style>body { display: none }</style> <form action="http://evil.example"><button>x</button>

[script](javascript:window.hacked=4) [data](data:text/html,<script>window.hacked=5</script>) [page](https://good.example)

```python"><script>window.hacked = 6</script>
x = "<img src=x onerror=window.hacked=7>"
```
"""
NASTY = "<img src=x onerror=window.hacked=8>"


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"no Chromium: none of {', '.join(_CHROMIUMS)} is on the PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(whole, tmp_path_factory):
    """A folder of files, two documents with metadata, and hostile ones."""
    root = tmp_path_factory.mktemp("page")
    for folder, name in (("docs", "tools"), ("docs", "more"), ("other", "last")):
        (root / "files" / folder).mkdir(parents=True, exist_ok=True)
        (root / "files" / folder / f"{name}.md").write_text(TOOLS.replace("Tools", f"Tools {name}"))
    with Index.create(root / "tools", whole) as index:
        index_files(index, [root / "files"], chunk_tokens=8)
        index.add([Document(f"A saw of {colour}.", {"colour": colour}, colour) for colour in ("red", "blue")])
        index.add([Document(HOSTILE, {"title": NASTY, "headings": [NASTY], NASTY: NASTY}, NASTY)])
        index.add([Document("apples of theirs", {}, "theirs")], namespace="theirs")
    return root / "tools"


@pytest.fixture(scope="module")
def addresses(browser, tiny_folder, index):
    """Return the address of a server: one that is open and writes answers, or one with keys that does not."""
    running = {}

    def address(*keyed):
        if keyed not in running:
            command = [sys.executable, "-c", _SERVE, str(tiny_folder("llama")), str(index), *keyed]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            running[keyed] = process, process.stdout.readline().strip()
        return running[keyed][1]

    yield address
    for process, _ in running.values():
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture
def visit(browser, addresses):
    """Return a function that opens the page; a request to others, an error in its log or a script of a document fails."""
    contexts, wrong = [], []

    def visit(path="", keyed=(), **options):
        address = addresses(*keyed)
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: None if request.url.startswith(address) else wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if _is_violation(message) else None)
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(f"{address}/{path}")
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.hacked") is None
        context.close()
    assert wrong == []


def _is_violation(message):
    """Return whether a line of the log is an error, other than a refused request or what was kept from a text."""
    told = ("the server responded with a status", "Executing inline event handler violates", "Setting the document's base")
    return message.type == "error" and not any(text in message.text for text in told)
