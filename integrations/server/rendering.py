r"""Documents' texts as HTML that loads and runs nothing, whatever stands in them.

rendered("# A heading\n\n```python\nx = 1\n```")   # Markdown, with code highlighted in classes
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from tp_retrieval import Document, Hit
from tp_retrieval.documents.formats import LANGUAGES, format_of, suffix_of

_SECONDS = 1.0  # for the texts of a search; those that are left are shown as they are
_CELLS = 32  # columns of a table; a row may have fewer cells than the head, which are filled up
_LARGEST = 500_000  # characters of HTML of a hit
_LONGEST = 8_000  # characters of a text that is rendered: some take the square of their length
_HIGHLIGHTED = 4_000  # characters of code, whose lexers are slower
_MARKDOWN_FORMATS = {"markdown", "html", "docx", "pptx", "epub", "notebook"}
_SCHEMES = ("http://", "https://", "mailto:")
_HEADINGS = {"h1": "h4", "h2": "h5", "h3": "h6", "h4": "h6", "h5": "h6"}  # below a hit's own
_KNOWN = {
    *LANGUAGES.values(),
    "rst",
    "json",
    "yaml",
    "toml",
    "xml",
    "html",
    "css",
    "diff",
    "console",
    "sh",
    "py",
    "js",
    "ts",
}
_FORMATTER: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


def rendered_hits(hits: Iterable[Hit]) -> list[str | None]:
    """Return each hit's text as HTML, with the documents around it where there are any; None for a long one."""
    end = time.monotonic() + _SECONDS
    return [_page(hit, end) for hit in hits]


def _page(hit: Hit, end: float) -> str | None:
    parts: list[str] = []
    for document in hit.context or (hit.document,):
        if time.monotonic() > end or len(document.text) > _LONGEST or sum(map(len, parts)) > _LARGEST:
            return None
        parts.append(_part(document, hit))
    return "".join(parts)


def _part(document: Document, hit: Hit) -> str:
    html = rendered(document.text, document.metadata.get("path"))
    if not hit.context:
        return html
    return f'<section class="{"own" if document.id == hit.document.id else "around"}">{html}</section>'


def rendered(text: str, path: object = None) -> str:
    """Return a text as HTML: Markdown where its file's name says so or there is none, else code or plain text.

    Tags in the text are text, links lead to http, https and mailto alone, and images are their descriptions.
    """
    if max((line.count("|") for line in text.split("\n")), default=0) > _CELLS:
        return f'<pre class="plain">{escape(text)}</pre>'
    if not isinstance(path, str):
        return _MARKDOWN.render(text)
    format_ = format_of(Path(path))
    if format_ in _MARKDOWN_FORMATS:
        return _MARKDOWN.render(text)
    language = LANGUAGES.get(suffix_of(Path(path))) or ("rst" if format_ == "rst" else None)
    kind = "code" if language not in (None, "rst") else "plain"
    return f'<pre class="{kind}">{_highlighted(text, language or "")}</pre>'


def _highlighted(code: str, language: str, attributes: str = "") -> str:
    """Return code as HTML with the classes of its words, or as it stands in a language that is not known."""
    try:
        is_known = language in _KNOWN and len(code) <= _HIGHLIGHTED  # other lexers can take seconds
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False) if is_known else None
    except ClassNotFound:
        lexer = None
    return escape(code) if lexer is None else highlight(code, lexer, _FORMATTER)


def _made_safe(tokens: Sequence[Token]) -> None:
    """Replace links that lead elsewhere than to pages by their text, images by their descriptions, and lower headings."""
    closing = "a"
    for token in tokens:
        token.tag = _HEADINGS.get(token.tag, token.tag)
        if token.type == "link_open":
            href = str(token.attrs.get("href", ""))
            is_page = href.lower().startswith(_SCHEMES)
            token.attrs = {"href": href, "rel": "noopener noreferrer", "target": "_blank"} if is_page else {}
            token.tag = closing = "a" if is_page else "span"
        elif token.type == "link_close":
            token.tag = closing
        elif token.type == "image":
            token.type, token.tag, token.content = "text", "", f"[{token.content or 'image'}]"
            token.attrs, token.children = {}, None
        elif token.type in ("th_open", "td_open"):
            token.attrs = {}  # an alignment as a style, which the page's policy forbids
        _made_safe(token.children or ())


class _Markdown:
    """CommonMark with tables and strikethrough."""

    def __init__(self) -> None:
        options = {"html": False, "highlight": _highlighted}
        self._parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
        self._parser.validateLink = _any_link  # type: ignore[method-assign] # they are judged below

    def render(self, text: str) -> str:
        environment: dict[str, Any] = {}
        tokens = self._parser.parse(text, environment)
        _made_safe(tokens)
        html: str = self._parser.renderer.render(tokens, self._parser.options, environment)
        return html


def _any_link(url: str) -> bool:
    return True


_MARKDOWN = _Markdown()
