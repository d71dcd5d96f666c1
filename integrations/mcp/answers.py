"""The answers of tools: records with a JSON schema for programs, and the same as text that a language model reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mcp import UriTemplate
from pydantic import BaseModel, Field

from tp_retrieval import Document, Hit
from tp_retrieval.documents.section import position_of
from tp_retrieval.indexing.metadata_json import to_json

DOCUMENT_URI = UriTemplate.parse("tp-retrieval://{index}/{id}{?namespace}")
"""The address of a document as a resource."""

CHARACTERS = 40_000
"""Characters of all texts of an answer together."""

_LONGEST = 8_000  # characters of a hit's text
_BEGINNING = 160  # characters of a text in a list
_SHOWN = 100  # keys and namespaces of an index
_OF_CHUNKS = {"path", "headings", "line", "page", "row", "digest", "chunks", "chunk", "start", "end"}
"""Metadata of a file's chunks that the text of an answer leaves out, since it names the place."""


class Answer(BaseModel):
    """What a tool returns."""

    def text(self) -> str:
        """Return the answer as a language model reads it."""
        raise NotImplementedError


class Record(BaseModel):
    """A document: its id, its address as a resource, and what it says."""

    id: str
    uri: str = Field(description="The document as a resource.")
    place: str | None = Field(description="The file, with line, page or row, and headings; null for a document of no file.")
    metadata: dict[str, Any]
    text: str
    cut: bool = Field(description="Whether the text goes on; `get` gives the rest.")

    def block(self, title: str) -> str:
        """Return the document as text below a title."""
        hidden = _OF_CHUNKS if "chunks" in self.metadata else set()
        shown = {key: value for key, value in self.metadata.items() if key not in hidden}
        lines = [title, f"place: {self.place}" if self.place else "", f"metadata: {_json(shown)}" if shown else ""]
        return "\n".join([*filter(None, lines), self.text + (" […]" if self.cut else "")])


class HitRecord(Record):
    """A hit of a search; `text` is what stands around the document too, where the search was asked to expand its hits."""

    rank: int
    score: float
    relevance: float | None = Field(description="How likely the document is relevant, 0 to 1; null if that is not known.")
    parts: dict[str, float] = Field(description="dense: cosine; lexical: BM25.")

    def block(self, title: str) -> str:
        """Return the hit as text below a title with its scores."""
        relevance = "" if self.relevance is None else f", relevance {self.relevance:.2f}"
        return super().block(f"{title}, score {self.score:.3g}{relevance}")


class SearchAnswer(Answer):
    """The hits of a search, best first."""

    index: str
    namespace: str
    mode: str
    hits: list[HitRecord]
    note: str | None = None

    def text(self) -> str:
        """Return the hits one below the other."""
        blocks = [hit.block(f"[{hit.rank}] id: {_json(hit.id)}") for hit in self.hits]
        if any(hit.cut for hit in self.hits):
            blocks.append("Texts that end in […] are cut; `get` with their ids gives the whole.")
        return _joined(f"{_counted(len(self.hits), 'hit')} in {self.index}, by {self.mode} search.", blocks, self.note)


class GetAnswer(Answer):
    """Documents by id, in the order asked for."""

    index: str
    namespace: str
    documents: list[Record]
    missing: list[str] = Field(description="Ids that no document has.")
    begin: int = Field(description="Characters of each text that were left out at its beginning.")

    def text(self) -> str:
        """Return the documents one below the other."""
        blocks = [document.block(f"id: {_json(document.id)}") for document in self.documents]
        for document in self.documents:
            if document.cut:
                begin = self.begin + len(document.text)
                blocks.append(f"{_json(document.id)} goes on: `get` with this id alone and begin={begin} gives the rest.")
        missing = f"No document has the id {', '.join(map(_json, self.missing))}." if self.missing else None
        return _joined(f"{_counted(len(self.documents), 'document')} of {self.index}.", blocks, missing)


class IndexRecord(BaseModel):
    """An index: its size, and what its documents can be filtered by."""

    name: str
    documents: int
    namespaces: dict[str, int] | None = Field(description='Documents by namespace, "" for those of none; null if confined.')
    metadata_keys: list[str] = Field(description="What `where` can name.")
    root: str | None = Field(description="The folder that paths of files are relative to, null if it is not known.")


class ListAnswer(Answer):
    """The indexes, or documents of one in the order of adding."""

    indexes: list[IndexRecord]
    documents: list[Record]
    more: bool = Field(description="Whether documents follow; a greater `offset` gives them.")
    note: str | None = None

    def text(self) -> str:
        """Return a line for each index and document."""
        if not self.indexes:
            blocks = [document.block(f"id: {_json(document.id)}") for document in self.documents]
            more = "More follow; a greater offset gives them." if self.more else None
            return _joined(f"{_counted(len(self.documents), 'document')}.", blocks, self.note or more)
        return _joined(_counted(len(self.indexes), "index", "indexes") + ".", map(_index_block, self.indexes), None)


class AddAnswer(Answer):
    """The ids of added documents, which are durable."""

    index: str
    namespace: str
    ids: list[str]

    def text(self) -> str:
        """Return the ids."""
        return f"{_counted(len(self.ids), 'document')} added to {self.index}: {', '.join(map(_json, self.ids))}"


class DeleteAnswer(Answer):
    """How many documents were removed."""

    index: str
    namespace: str
    removed: int

    def text(self) -> str:
        """Return the number."""
        return f"{_counted(self.removed, 'document')} removed from {self.index}."


def hit_records(hits: list[Hit], index: str, namespace: str) -> list[HitRecord]:
    """Return hits with their texts cut, so that many hits have shorter ones."""
    longest = min(_LONGEST, CHARACTERS // max(len(hits), 1))
    return [
        HitRecord(
            **_fields(hit.document, index, namespace, hit.passage, longest),
            rank=hit.rank,
            score=hit.score,
            relevance=hit.relevance,
            parts=dict(hit.parts),
        )
        for hit in hits
    ]


def document_records(documents: list[Document], index: str, namespace: str, begin: int) -> list[Record]:
    """Return documents with their texts from the character `begin`; the last ones are cut where all are too long."""
    left, records = CHARACTERS, []
    for document in documents:
        records.append(Record(**_fields(document, index, namespace, document.text[begin:], left)))
        left -= len(records[-1].text)
    return records


def list_records(documents: list[Document], index: str, namespace: str) -> list[Record]:
    """Return documents with how their texts begin."""
    return [Record(**_fields(document, index, namespace, document.text, _BEGINNING)) for document in documents]


def shortened(names: Iterable[str]) -> list[str]:
    """Return as many names as an answer shows."""
    return [*names][:_SHOWN]


def _fields(document: Document, index: str, namespace: str, text: str, longest: int) -> dict[str, Any]:
    """Return the fields of a record, with a text cut to so many characters."""
    address = {"index": index, "id": str(document.id)} | ({"namespace": namespace} if namespace else {})
    return {
        "id": document.id,
        "uri": DOCUMENT_URI.expand(address),
        "place": _place(document.metadata),
        "metadata": json.loads(to_json(document.metadata)),  # dates as `where` takes them
        "text": text[:longest],
        "cut": len(text) > longest,
    }


def _place(metadata: Mapping[str, Any]) -> str | None:
    path, headings = metadata.get("path"), metadata.get("headings")
    if not isinstance(path, str):
        return None
    trail = [str(heading) for heading in headings] if isinstance(headings, list) else []
    return " › ".join([f"{path}{position_of(metadata)}", *trail])


def _index_block(index: IndexRecord) -> str:
    lines = [f"{index.name}: {_counted(index.documents, 'document')}"]
    if index.namespaces and set(index.namespaces) != {""}:
        lines.append(f"namespaces: {_json(index.namespaces)}")
    if index.metadata_keys:
        lines.append(f"metadata keys: {', '.join(index.metadata_keys)}")
    if index.root:
        lines.append(f"paths of files are relative to {index.root}")
    return "\n".join(lines)


def _joined(head: str, blocks: Iterable[str], note: str | None) -> str:
    return "\n\n".join([head, *blocks, *([note] if note else [])])


def _counted(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
