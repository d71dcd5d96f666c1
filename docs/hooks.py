"""What mkdocs does beside rendering docs/*.md: pages of other files, commands, drawings, links, and nothing from elsewhere.

Pages link to files of the repository as on a code host (`../examples/quickstart.py`). Such files are copied into the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer
from bs4 import BeautifulSoup
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from tp_retrieval.cli.main import app

ROOT = Path(__file__).parents[1]
RECIPES = "tp_retrieval/embedding/recipes"
CARDS = {
    f"card-{path.parent.name}-{path.stem}.md": path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"{RECIPES}/*/*.md")
}
SOURCES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"} | CARDS
"""Pages that are files elsewhere in the repository."""
PAGES = {source: page for page, source in SOURCES.items()}

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_NAMED_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)\)")
_DRAWING = re.compile(r'<img alt="(?P<alt>[^"]*)" src="images/(?P<name>[\w-]+\.svg)" ?/?>')
_LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


def commands() -> str:
    """Return the page of all commands, from the program itself."""
    command = typer.main.get_group(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="tp-retrieval", title="Commands")
    text = re.sub(r"^(#+) `tp-retrieval (.+)`$", r"\1 \2", text, flags=re.MULTILINE)
    start, *rest = re.split(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", text)  # lists of sentences cut short
    rows = [f"| [`{name}`](#{name}) | {inner.get_short_help_str(300)} |" for name, inner in command.commands.items()]
    return start + "\n".join(["| command | |", "|---|---|", *rows]) + "\n" + "".join(rest)


def target(link: str, page: str) -> str:
    """Return where a link to a file leads from a page, as a path in the manual."""
    folder = posixpath.dirname(SOURCES.get(page, f"docs/{page}"))
    path = posixpath.normpath(posixpath.join(folder, link))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(RECIPES) and (ROOT / path).is_dir():
        return "recipes.md"
    return PAGES.get(path, f"repository/{path}")


def is_folder(link: str, page: str) -> bool:
    """Return whether a link leads to a folder of the repository."""
    return (ROOT / target(link, page).removeprefix("repository/")).is_dir()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and the files that pages link to."""
    for page, source in SOURCES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "commands.md", content=commands()))
    linked = {
        target(link, file.src_uri)
        for file in files.documentation_pages()
        for _, link, _ in _LINK.findall(file.content_string)
    }
    for path in sorted(linked):
        copied = ROOT / path.removeprefix("repository/")
        if path.startswith("repository/") and copied.is_file():
            files.append(File.generated(config, path, abs_src_path=str(copied)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the places that files have in the manual; of a folder only the words stay."""
    markdown = _NAMED_LINK.sub(lambda found: found[1] if is_folder(found[2], page.file.src_uri) else found[0], markdown)
    return _LINK.sub(lambda found: f"{found[1]}{target(found[2], page.file.src_uri)}{found[3]}", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put drawings into the page, so that they take the colours of its scheme, which need not be the browser's."""
    return _DRAWING.sub(lambda found: drawn(found["name"], found["alt"]), html)


def drawn(name: str, alt: str) -> str:
    """Return a drawing as a part of a page; the manual's own style sheet has its colours."""
    svg = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
    svg = re.sub(r"<style>.*?</style>\s*|<title>.*?</title>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg class="drawing" aria-label="{alt}" ', 1)
    return f'<span class="drawing-frame">{svg}</span>'


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a manual with links that lead nowhere, or that loads something from another place than itself."""
    wrong = [*problems(Path(config.site_dir))]
    if wrong:
        raise PluginError("\n".join(wrong))


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with links, anchors and loaded files in a built site, by file."""
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in sorted(site.rglob("*.html"))}
    anchors = {path: {str(tag["id"]) for tag in page.find_all(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for tag in page.find_all(list(_LOADED)):
            if re.match(r"(?:https?:)?//", str(tag.get(_LOADED[tag.name], ""))):
                yield f"{name}: {tag.name} is loaded from {tag[_LOADED[tag.name]]}"
        for tag in page.find_all(href=True):
            address = urlsplit(str(tag["href"]))
            end = (path.parent / unquote(address.path)).resolve() if address.path else path
            if address.scheme or address.netloc or address.path.startswith("/"):  # elsewhere; 404.html is for a root
                continue
            if not end.is_file():
                yield f"{name}: {address.geturl()} is not there"
            elif end in anchors and address.fragment and unquote(address.fragment) not in anchors[end]:
                yield f"{name}: {address.geturl()} has no such place"
