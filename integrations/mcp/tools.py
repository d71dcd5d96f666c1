"""The tools: what a language model reads about each, the arguments it takes, and what it does with a caller's indexes."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from mcp.types import Tool, ToolAnnotations
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from tp_retrieval import Document, Index
from tp_retrieval.indexing.metadata_json import with_dates
from tp_retrieval.indexing.search.filters import keys_of
from tp_retrieval.indexing.search.query import Where as WhereMapping
from tp_retrieval.integrations.mcp.access import Access
from tp_retrieval.integrations.mcp.answers import (
    AddAnswer,
    Answer,
    DeleteAnswer,
    GetAnswer,
    IndexRecord,
    ListAnswer,
    SearchAnswer,
    document_records,
    hit_records,
    list_records,
    shortened,
)

_READ = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_FILTERS = (
    'Filters are objects: {"year": {"$gte": 2020}}, {"kind": "guide", "tags": {"$contains": "beta"}}, '
    '{"$or": [{"a.b": 1}, {"c": {"$in": [1, 2]}}]}. Operators: $eq $ne $gt $gte $lt $lte $in $nin $contains $match $imatch '
    '$exists, $and $or $not; a date is {"$date": "2024-05-01"}. `list` names the metadata keys; do not guess them.'
)


def _parsed(value: object) -> object:
    """Return the value of a list or an object that a client sent as JSON in a string."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


IndexName = Annotated[str | None, Field(description="Name of the index; may be left out where there is one.")]
Namespace = Annotated[str | None, Field(description="Only documents of this namespace; by default those of none.")]
Where = Annotated[
    dict[str, Any] | None,
    BeforeValidator(_parsed),
    Field(description='Only documents whose metadata fit, such as {"year": {"$gte": 2020}}.'),
]
Id = Annotated[str, Field(description="Id of a document.")]


class _Untitled(GenerateJsonSchema):
    """A JSON schema without titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Call(BaseModel):
    """A call of a tool: its arguments, and what it does."""

    model_config = ConfigDict(extra="forbid")

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    annotations: ClassVar[ToolAnnotations] = _READ
    answer: ClassVar[type[Answer]]

    def run(self, access: Access) -> Answer:
        """Return the answer; raise `TPRetrievalError`."""
        raise NotImplementedError

    @classmethod
    def tool(cls) -> Tool:
        """Return the tool as clients see it."""
        schema = cls.model_json_schema(schema_generator=_Untitled)
        del schema["title"], schema["description"]  # of the class
        return Tool(
            name=cls.name,
            title=cls.title,
            description=cls.description,
            input_schema=schema,
            output_schema=cls.answer.model_json_schema(mode="serialization", schema_generator=_Untitled),
            annotations=cls.annotations,
        )


class Search(Call):
    """A search of one index."""

    name = "search"
    title = "Search documents"
    description = (
        "Find the documents of an index that answer a query, best first, with ids, scores and texts.\n"
        'mode "hybrid" (default) fuses words and meaning and suits most questions; "lexical" takes the words exactly: for '
        'identifiers, error codes, names and quotations; "dense" compares meaning alone: for paraphrases and questions in '
        f"other words than the texts.\n{_FILTERS}\n"
        'expand shows what stands around a hit in its file: a number of chunks before and after, or "section". '
        'group_by "path" gives one hit a file. Long texts are cut; `get` gives the whole.'
    )
    answer = SearchAnswer

    query: Annotated[str, Field(min_length=1, max_length=10_000, description="Question or keywords.")]
    index: IndexName = None
    mode: Annotated[Literal["hybrid", "dense", "lexical"], Field(description="How documents are scored.")] = "hybrid"
    k: Annotated[int, Field(ge=1, le=50, description="Number of hits.")] = 5
    where: Where = None
    expand: Annotated[
        Annotated[int, Field(ge=0, le=64)] | Literal["section"] | None,
        Field(description='Chunks to show before and after each hit, or "section".'),
    ] = None
    min_relevance: Annotated[
        float | None, Field(ge=0, le=1, description="Leave out hits that are less likely relevant.")
    ] = None
    group_by: Annotated[
        str | None, Field(min_length=1, description='Metadata key of which each value gives one hit, such as "path".')
    ] = None
    namespace: Namespace = None

    def run(self, access: Access) -> SearchAnswer:
        """Return the hits."""
        name, index = access.index(self.index)
        namespace = access.namespace_of(self.namespace)
        hits = index.search(
            self.query,
            self.k,
            mode=self.mode,
            where=self.where,
            expand=self.expand,
            min_relevance=self.min_relevance,
            group_by=self.group_by,
            namespace=namespace,
        )
        return SearchAnswer(
            index=name,
            namespace=namespace,
            mode=self.mode,
            hits=hit_records(hits, name, namespace),
            note=_unknown_keys(access, index, self.where, hits),
        )


class Get(Call):
    """Documents by id."""

    name = "get"
    title = "Read documents"
    description = (
        "Read documents whole by their ids, which `search` and `list` give. A text that is too long for one answer is cut, "
        "and the answer says with which `begin` it goes on."
    )
    answer = GetAnswer

    ids: Annotated[list[Id], Field(min_length=1, max_length=50), BeforeValidator(_parsed)]
    index: IndexName = None
    begin: Annotated[int, Field(ge=0, description="Characters to leave out of each text first.")] = 0
    namespace: Namespace = None

    def run(self, access: Access) -> GetAnswer:
        """Return the documents that are there."""
        name, index = access.index(self.index)
        namespace = access.namespace_of(self.namespace)
        documents = index.get(self.ids, namespace=namespace)
        there = {document.id for document in documents}
        return GetAnswer(
            index=name,
            namespace=namespace,
            documents=document_records(documents, name, namespace, self.begin),
            missing=[id_ for id_ in self.ids if id_ not in there],
            begin=self.begin,
        )


class List(Call):
    """The indexes, or documents of one."""

    name = "list"
    title = "List indexes and documents"
    description = (
        "Without an index: name the indexes, their numbers of documents, namespaces and metadata keys; do so before you "
        "filter. With an index: list its documents in the order of adding, with ids, metadata and how their texts begin.\n"
        f"{_FILTERS}"
    )
    answer = ListAnswer

    index: Annotated[str | None, Field(description="Name of the index whose documents to list.")] = None
    where: Where = None
    limit: Annotated[int, Field(ge=1, le=100, description="Most documents to list.")] = 20
    offset: Annotated[int, Field(ge=0, description="Documents to leave out first.")] = 0
    namespace: Namespace = None

    def run(self, access: Access) -> ListAnswer:
        """Return records of indexes or of documents."""
        namespace = access.namespace_of(self.namespace)
        if self.index is None:
            return ListAnswer(indexes=index_records(access, namespace), documents=[], more=False)
        name, index = access.index(self.index)
        documents = index.get(where=self.where, namespace=namespace, limit=self.limit + 1, offset=self.offset)
        return ListAnswer(
            indexes=[],
            documents=list_records(documents[: self.limit], name, namespace),
            more=len(documents) > self.limit,
            note=_unknown_keys(access, index, self.where, documents),
        )


class NewDocument(BaseModel):
    """A document to add."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1)]
    id: Annotated[str | None, Field(description="Its id, of which a document is replaced; by default a new one.")] = None
    metadata: Annotated[dict[str, Any], Field(description="What `where` filters by."), BeforeValidator(_parsed)] = {}


class Add(Call):
    """An addition of documents."""

    name = "add"
    title = "Add documents"
    description = (
        "Add documents to an index, replacing those with the same id: all of them, or none if one can't be added. They are "
        "durable when the ids come back."
    )
    annotations = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)
    answer = AddAnswer

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=100), BeforeValidator(_parsed)]
    index: IndexName = None
    namespace: Annotated[str | None, Field(description="Namespace to add to; by default none.")] = None

    def run(self, access: Access) -> AddAnswer:
        """Add the documents."""
        name, index = access.index(self.index)
        namespace = access.namespace_of(self.namespace)
        documents = [Document(one.text, with_dates(one.metadata), one.id) for one in self.documents]
        return AddAnswer(index=name, namespace=namespace, ids=index.add(documents, namespace=namespace))


class Delete(Call):
    """A removal of documents."""

    name = "delete"
    title = "Delete documents"
    description = "Remove documents of an index by their ids, for good. Unknown ids are ignored."
    annotations = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
    answer = DeleteAnswer

    ids: Annotated[list[Id], Field(min_length=1, max_length=1000), BeforeValidator(_parsed)]
    index: IndexName = None
    namespace: Namespace = None

    def run(self, access: Access) -> DeleteAnswer:
        """Remove the documents."""
        name, index = access.index(self.index)
        namespace = access.namespace_of(self.namespace)
        return DeleteAnswer(index=name, namespace=namespace, removed=index.delete(self.ids, namespace=namespace))


def tools_of(access: Access) -> dict[str, type[Call]]:
    """Return the tools of a caller by name: those that change documents only if it may."""
    kinds: tuple[type[Call], ...] = (Search, Get, List, Add, Delete) if access.write else (Search, Get, List)
    return {kind.name: kind for kind in kinds}


def index_records(access: Access, namespace: str) -> list[IndexRecord]:
    """Return what a caller may see of its indexes."""
    return [_index_record(access, name, index, namespace) for name, index in access.indexes.items()]


def _index_record(access: Access, name: str, index: Index, namespace: str) -> IndexRecord:
    counts, confined = index.namespaces(), access.namespace is not None
    files = index.file_settings(namespace) if access.local else None
    return IndexRecord(
        name=name,
        documents=counts.get(namespace, 0) if confined else sum(counts.values()),
        namespaces=None if confined else {each: counts[each] for each in shortened(counts)},
        metadata_keys=shortened(access.metadata_keys(index)),
        root=None if files is None else files.root,
    )


def _unknown_keys(access: Access, index: Index, where: WhereMapping | None, results: object) -> str | None:
    """Return a sentence that names the keys of a filter that no document has, where it kept nothing."""
    if not where or results:
        return None
    keys = access.metadata_keys(index)
    unknown = sorted(keys_of(where) - {*keys})
    if not unknown:
        return None
    return f"No document has the metadata key {', '.join(unknown)}; there are: {', '.join(shortened(keys)) or 'none'}."
