"""Keep a frozen LLM's vectors in other people's stores, through LangChain: Chroma here, PostgreSQL with pgvector if given.

Run: pip install 'tp-retrieval[langchain]' langchain-chroma langchain-postgres && python examples/pgvector_and_chroma.py
With a server: python examples/pgvector_and_chroma.py postgresql+psycopg://user:password@localhost:5432/database
"""

import sys
import tempfile

from langchain_chroma import Chroma
from langchain_core.vectorstores import VectorStore
from langchain_postgres import PGVector

from tp_retrieval import Embedder
from tp_retrieval.integrations.langchain import TPEmbeddings

TEXTS = [
    "Whales are mammals that live in the sea and breathe air.",
    "A sourdough starter is flour and water in which wild yeast lives.",
    "The Treaty of Westphalia ended the Thirty Years' War in 1648.",
    "An octopus has three hearts and blue blood.",
    "Bread dough rises because yeast turns sugar into carbon dioxide.",
]


def main() -> None:
    """Fill each store and ask it the same question."""
    # A real corpus has hundreds of texts: then fit the recipe's maps on it first, `Embedder.from_pretrained().fit(texts)`,
    # save them, and name their folder as the model. With five texts there is nothing to fit.
    embeddings = TPEmbeddings.from_embedder(Embedder.from_pretrained())
    stores: dict[str, VectorStore] = {"Chroma": Chroma("texts", embeddings, persist_directory=tempfile.mkdtemp())}
    if len(sys.argv) > 1 and sys.argv[1].startswith("postgresql"):
        stores["pgvector"] = PGVector(embeddings, connection=sys.argv[1], collection_name="texts")
    for name, store in stores.items():
        store.add_texts(TEXTS, ids=[str(i) for i in range(len(TEXTS))])
        (best,) = store.similarity_search("Why does bread dough rise?", k=1)
        print(f"{name}: {best.page_content}")


if __name__ == "__main__":
    main()
