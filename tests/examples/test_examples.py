import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.langchain_faiss import save_local

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SLOW = pytest.mark.slow  # it writes sentences
EXPECTED = {
    "answers.py": ["Python strings", "The documents do not answer this."],
    "langchain_rag.py": ["found:  Bread dough rises because yeast", "answer: ", "carbon dioxide"],
    "llama_index_rag.py": ["  Whales are mammals", "from:   Bread dough rises", "answer: "],
    "migrate_from_langchain_faiss.py": ["kept: 2 documents", "of 16 numbers", "new: 2 documents", "-> id0: An octopus"],
    "sentence_transformers_similarity.py": ["found: Bread dough rises", "read again: 1.0000", "binary: 144 bytes"],
    "pgvector_and_chroma.py": ["Chroma: Bread dough rises"],
    "quickstart.py": ["1. whales", "bread: Bread dough rises"],
}


@pytest.mark.usefixtures("closed_loop")
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=SLOW if path.name == "answers.py" else (), id=path.name) for path in EXAMPLES]
)
def test_an_example_runs_prints_what_it_promises_and_is_short(path, capsys, tmp_path, monkeypatch):
    texts = ["An octopus has three hearts. Two of them serve its gills.", "Bread dough rises because of yeast."]
    vectors = DeterministicFakeEmbedding(size=16).embed_documents(texts)
    save_local(tmp_path / "store", texts, np.array(vectors, dtype=np.float32), monkeypatch)
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "store")])  # where an example takes a folder
    assert len(path.read_text().splitlines()) < 60
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    for line in EXPECTED[path.name]:
        assert line in printed
