"""Make the golden index of the present format: python -m tests.golden.make FOLDER. Run once for each new format.

(format-1 was made by the code of its time; its expected.json by the first code of format 2. Both hold a ToyEmbedder's
vectors, the later ones a StretchEmbedder's; those of format-4 and format-5 are in half precision, their snapshots hold
codes, and format-5 has two namespaces.)
"""

import json
import sys
from pathlib import Path

from tests.toy import StretchEmbedder
from tp_retrieval import Document, Index
from tp_retrieval.indexing.vectors import kinds

COUNT = 400


def documents():
    for i in range(COUNT):
        metadata = {"n": i, "even": i % 2 == 0, "deep": {"x": None if i % 5 else "y"}, "tags": ["a", f"t{i % 4}"]}
        yield Document(f"text number {i} about {'cats' if i % 3 else 'dogs'}", metadata, f"id{i}")


def expected(index):
    queries = ["cats text 5", "dogs number 33", "changed"]
    return {
        "documents": [[d.id, d.text, d.metadata] for d in index],
        "searches": [
            [query, mode, [[hit.document.id, hit.score] for hit in index.search(query, 5, mode=mode)]]
            for query in queries
            for mode in ("dense", "lexical", "hybrid")
        ],
        "namespaces": index.namespaces(),
        "of tenant": [hit.document.text for hit in index.search("cats", namespace="tenant")],
        "filtered": [hit.document.id for hit in index.search("text", 3, where={"n": {"$gte": 75}})],
    }


def main():
    folder = Path(sys.argv[1])
    if not folder.exists():
        kinds.TRAIN_AT = COUNT
        with Index.create(folder, StretchEmbedder(), raw="float16") as index:
            index.add(list(documents()))
            index.delete(["id7", "id8"])
            index.add([Document("changed words", {"n": -1}, "id9")])
            index.add([Document("cats text of a tenant", {"n": 99}, "id1")], namespace="tenant")
    with Index.open(folder, StretchEmbedder()) as index:
        found = expected(index)
    (folder / "expected.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
