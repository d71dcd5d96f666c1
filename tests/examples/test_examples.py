import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
EXPECTED = {
    "langchain_rag.py": ["found:  Bread dough rises because yeast", "answer: ", "carbon dioxide"],
    "llama_index_rag.py": ["  Whales are mammals", "from: Bread dough rises"],
    "quickstart.py": ["1. whales", "bread: Bread dough rises"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_prints_what_it_promises_and_is_short(path, capsys):
    assert len(path.read_text().splitlines()) < 60
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    for line in EXPECTED[path.name]:
        assert line in printed
