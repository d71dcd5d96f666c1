"""Chunks: a source cut into documents at heading and sentence borders, by the model's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tp_retrieval.documents.section import Section
from tp_retrieval.documents.sources import Source
from tp_retrieval.documents.splitting import Piece, split
from tp_retrieval.types import Document


def chunk(source: Source, chunk_tokens: int, count_tokens: Callable[[str], int]) -> list[Document]:
    """Return a source's documents: at most about `chunk_tokens` tokens each, with what says where they stand as metadata.

    These are `path`, the `headings` above, and `chunk`, which counts from 0 to `chunks` within the file; `start` and `end`
    count characters in the file (without byte order mark, a line's end as one), in a record's text, in a page's, slide's,
    row's or cell's, and for HTML, Word and EPUB in the page's Markdown. `line` is the line in a file of text, beside
    `page`, `row`, `sheet`, `cell` or `chapter` in other files.
    """
    pieces = [
        piece
        for section in source.sections()
        for piece in _documents(section, [*split(section.text, chunk_tokens, count_tokens)])
    ]
    digest = source.digest(chunk_tokens)
    of_file = {"path": source.name, "digest": digest, "chunks": len(pieces)}
    return [
        Document(piece.text, {**piece.metadata, **of_file, "chunk": i}, piece.id or f"{source.name}#{i}")
        for i, piece in enumerate(pieces)
    ]


def _documents(section: Section, pieces: Sequence[Piece]) -> Iterator[Document]:
    metadata = dict(section.metadata)
    if section.headings is not None:
        metadata["headings"] = list(section.headings)
    line, counted = section.line, 0
    for i, piece in enumerate(pieces):
        start = section.start + piece.start
        if line is not None:
            line += section.text.count("\n", counted, piece.start)
            counted = piece.start
            metadata["line"] = line
        id_ = section.id if section.id is None or len(pieces) == 1 else f"{section.id}#{i}"
        yield Document(piece.text, {**metadata, "start": start, "end": start + len(piece.text)}, id_)
