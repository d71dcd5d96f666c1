"""Take over a folder that LangChain-community's `FAISS.save_local` wrote: first as it is, then embedded by a frozen LLM.

Run: pip install 'tp-retrieval[langchain]' && python examples/migrate_from_langchain_faiss.py FOLDER
"""

import sys
from pathlib import Path

from langchain_core.embeddings import DeterministicFakeEmbedding

from tp_retrieval.integrations.langchain import TPEmbeddings, TPVectorStore


def main() -> None:
    """Keep the old vectors, then give the same documents new ones."""
    folder = Path(sys.argv[1])
    old = DeterministicFakeEmbedding(size=16)  # put the Embeddings here that made your store

    # Nothing is embedded: vectors, texts, metadata and ids move into one durable SQLite file. index.pkl is read as
    # data: nothing that it names is imported or called.
    kept = TPVectorStore.from_faiss(folder, old, path=folder / "kept", trust_pickle=True)
    documents = kept.get_by_ids([str(document.id) for document in kept.index])
    print(f"kept: {len(documents)} documents with their vectors of {kept.index.info().dimension} numbers")

    # The same documents through the frozen model, with full-text search beside the vectors.
    new = TPVectorStore.from_documents(documents, TPEmbeddings(), path=folder / "new")
    question = documents[0].page_content.split(".")[0]
    (best,) = new.similarity_search(question, k=1, mode="hybrid")
    print(f"new: {len(new.index)} documents with vectors of {new.index.info().dimension} numbers")
    print(f"{question} -> {best.id}: {best.page_content}")
    kept.close()
    new.close()


if __name__ == "__main__":
    main()
