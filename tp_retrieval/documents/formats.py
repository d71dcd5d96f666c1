"""The formats that are read: which a file has, and its reader.

A reader is a function from a `SourceFile` to its sections. Formats that need a library name the extra when it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tp_retrieval.documents.section import Section


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read, where their names and bytes do not say.

    `encoding` is that of all text files. `json_text` is the path of the texts in a .json or .jsonl file, such as
    "items[].body". `loaders` are commands by suffix that are given a file's path and write its text, as Markdown.
    """

    encoding: str | None = None
    json_text: str | None = None
    loaders: Mapping[str, str] = field(default_factory=dict)

    def digestible(self, path: Path) -> list[str | None]:
        """Return what decides how a file is read."""
        is_json = format_of(path) in ("json", "jsonl")
        return [self.encoding, self.json_text if is_json else None, self.loaders.get(suffix_of(path))]


class SourceFile(Protocol):
    """A file as a reader needs it."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def data(self) -> bytes:
        """Its bytes."""

    @property
    def text(self) -> str:
        """Its text."""

    @property
    def options(self) -> ReadingOptions:
        """How it is read."""


Reader = Callable[[SourceFile], Iterable[Section]]

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "markdown": (".md", ".markdown", ".mdx", ".qmd", ".rmd"),
    "rst": (".rst", ".rst.txt"),
    "html": (".html", ".htm", ".xhtml"),
    "text": (".txt", ".text", ".log", ".tex", ".org", ".adoc", ".asciidoc", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "table": (".csv", ".tsv"),
    "notebook": (".ipynb",),
    "pdf": (".pdf",),
    "docx": (".docx",),
    "pptx": (".pptx",),
    "xlsx": (".xlsx",),
    "epub": (".epub",),
}
LANGUAGES: Mapping[str, str] = {
    ".bash": "bash",
    ".c": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cs": "csharp",
    ".cxx": "cpp",
    ".dart": "dart",
    ".go": "go",
    ".h": "cpp",
    ".hpp": "cpp",
    ".hs": "haskell",
    ".java": "java",
    ".jl": "julia",
    ".js": "javascript",
    ".jsx": "javascript",
    ".kt": "kotlin",
    ".lua": "lua",
    ".mjs": "javascript",
    ".php": "php",
    ".pl": "perl",
    ".py": "python",
    ".pyi": "python",
    ".r": "r",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".sh": "bash",
    ".sql": "sql",
    ".swift": "swift",
    ".ts": "typescript",
    ".tsx": "tsx",
    ".zig": "zig",
}
"""The programming language of source code, as tree-sitter names it."""

_FORMATS = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes} | dict.fromkeys(LANGUAGES, "code")
SUFFIXES = tuple(_FORMATS)
"""The suffixes of files that are read."""


def suffix_of(path: Path) -> str:
    """Return a file's suffix in lower case, of two parts for `.rst.txt`."""
    name = path.name.lower()
    return ".rst.txt" if name.endswith(".rst.txt") else path.suffix.lower()


def format_of(path: Path) -> str | None:
    """Return the format of a file by its suffix, "text" for one without a suffix, None for another one."""
    suffix = suffix_of(path)
    return _FORMATS.get(suffix) if suffix else "text"
