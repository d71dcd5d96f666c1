"""Ask questions of a folder: one frozen 135M model finds the passages, writes the answer and cites them.

Run: python examples/answers.py
"""

import tempfile
from pathlib import Path

from tp_retrieval import Answerer, Embedder, Index
from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read

FAQ = Path(__file__).parent / "data" / "python-faq" / "design.rst.txt"


def main() -> None:
    """Index a file, answer a question from it, and refuse one that it does not answer."""
    embedder = Embedder.from_pretrained(recipe="retrieval-fast", whole=True)  # every block and the LM head, once
    chunks = [part for path in find([FAQ]).files for part in chunk(read(path), 256, embedder.count_tokens)]
    answerer = Answerer(embedder)
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", embedder) as index:
        index.add(chunks)
        for question in ("Why are Python strings immutable?", "How long should I boil an egg?"):
            print(f"\n{question}")
            stream = answerer.stream(question, index.search(question, k=3))
            for piece in stream:
                print(piece, end="", flush=True)
            print()
            for number, hit in stream.answer.sources.items():
                print(f"[{number}] {' > '.join(hit.document.metadata['headings'])}")


if __name__ == "__main__":
    main()
