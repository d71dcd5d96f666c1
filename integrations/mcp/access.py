"""What a caller may use: the one place through which tools and resources reach indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tp_retrieval import Index, InputError
from tp_retrieval.indexing.storage.metadata_index import facts_of

_SAMPLE = 1000  # documents of a namespace whose keys are read


@dataclass(frozen=True)
class Access:
    """The indexes of a caller by name, the namespace it is confined to, and whether it may change documents.

    With `namespace` None a call may name any, and means documents of none if it names none. `local` says that the caller is
    on this machine, and may see in which folder files were read.
    """

    indexes: Mapping[str, Index]
    namespace: str | None = None
    write: bool = False
    local: bool = False

    def index(self, name: str | None) -> tuple[str, Index]:
        """Return an index with its name, the only one without a name; raise `InputError` if there is none."""
        if name is None and len(self.indexes) == 1:
            return next(iter(self.indexes.items()))
        there_are = ", ".join(self.indexes) or "none"
        if name is None:
            raise InputError(f"index: name one of {there_are}")
        if name not in self.indexes:
            raise InputError(f"index: {name!r} is not here; there are {there_are}")
        return name, self.indexes[name]

    def namespace_of(self, name: str | None) -> str:
        """Return the namespace that a call means; raise `InputError` if the caller is confined to another."""
        if self.namespace is None:
            return name or ""
        if name not in (None, "", self.namespace):
            raise InputError(f"namespace: {name!r} is not open here; leave it out")
        return self.namespace

    def metadata_keys(self, index: Index) -> list[str]:
        """Return the keys of the documents' metadata; of a namespace to which a caller is confined those of a sample."""
        if self.namespace is None:
            return index.metadata_keys()
        documents = index.get(namespace=self.namespace, limit=_SAMPLE)
        return sorted({path for document in documents for path, _, _ in facts_of(document.metadata)})
