"""Index a few documents with a frozen 135M language model and ask for them.

Run: python examples/quickstart.py
"""

import tempfile

from tp_retrieval import Document, Embedder, Index

DOCUMENTS = [
    Document("Whales are mammals that live in the sea and breathe air.", {"topic": "animals"}, "whales"),
    Document("A sourdough starter is flour and water in which wild yeast lives.", {"topic": "food"}, "sourdough"),
    Document("The Treaty of Westphalia ended the Thirty Years' War in 1648.", {"topic": "history"}, "westphalia"),
    Document("An octopus has three hearts and blue blood.", {"topic": "animals"}, "octopus"),
    Document("Bread dough rises because yeast turns sugar into carbon dioxide.", {"topic": "food"}, "bread"),
]


def main() -> None:
    """Make an index, search it, and search it again after opening it anew."""
    embedder = Embedder.from_pretrained()  # the embedded SmolLM2-135M-Instruct, recipe "retrieval-balanced"
    with tempfile.TemporaryDirectory() as folder:
        with Index.create(f"{folder}/index", embedder) as index:
            index.add(DOCUMENTS)
            for hit in index.search("Which sea animal breathes air?", k=2):
                print(f"{hit.rank}. {hit.document.id}  {hit.score:.2f}  {hit.document.text}")

        with Index.open(f"{folder}/index", embedder) as index:
            best = index.search("What makes dough rise?", k=1)[0]
            print(f"{best.document.id}: {best.document.text}")


if __name__ == "__main__":
    main()
