"""A folder as LangChain-community's FAISS store saves it, without LangChain-community."""

import pickle
import sys
import types

import faiss
from langchain_core.documents import Document


class InMemoryDocstore:
    """The class of this name in langchain-community, whose pickles name it by module and name."""

    def __init__(self, documents):
        self._dict = documents


def save_local(folder, texts, vectors, monkeypatch):
    """Write a folder as `FAISS.save_local` does, with LangChain's own Document; ids are id0, id1, ..."""
    module = types.ModuleType("langchain_community.docstore.in_memory")
    module.InMemoryDocstore = InMemoryDocstore
    monkeypatch.setitem(sys.modules, "langchain_community", types.ModuleType("langchain_community"))
    monkeypatch.setitem(sys.modules, "langchain_community.docstore", types.ModuleType("langchain_community.docstore"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(InMemoryDocstore, "__module__", module.__name__)
    folder.mkdir()
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    documents = {f"id{i}": Document(text, metadata={"n": i}) for i, text in enumerate(texts)}
    saved = (InMemoryDocstore(dict(reversed(documents.items()))), {i: f"id{i}" for i in range(len(texts))})
    (folder / "index.pkl").write_bytes(pickle.dumps(saved))
