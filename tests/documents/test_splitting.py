"""Texts are split as LangChain's splitter splits them."""

import random
from pathlib import Path

import pytest
from langchain_text_splitters import RecursiveCharacterTextSplitter

from tp_retrieval.documents.splitting import _SEPARATORS, split

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "examples" / "data" / "python-faq").glob("*.txt"))),
    (ROOT / "README.md").read_text(encoding="utf-8"),
    (ROOT / "tp_retrieval" / "indexing" / "index.py").read_text(encoding="utf-8"),
    "これは文章です。次の文？はい！" * 50,
    "x" * 500,
    "   \n\n  \n ",
    "",
    "a",
]


def words(text):
    return len(text.split())


def expected(text, longest, measure):
    splitter = RecursiveCharacterTextSplitter(
        separators=list(_SEPARATORS),
        keep_separator="end",
        chunk_size=longest,
        chunk_overlap=0,
        length_function=measure,
        add_start_index=True,
    )
    return [(piece.metadata["start_index"], piece.page_content) for piece in splitter.create_documents([text])]


@pytest.mark.parametrize("measure", [words, len])
@pytest.mark.parametrize("longest", [1, 2, 7, 60, 1000])
def test_real_texts(measure, longest):
    for text in TEXTS:
        assert [tuple(piece) for piece in split(text, longest, measure)] == expected(text, longest, measure)


def test_random_texts():
    chance = random.Random(0)
    for _ in range(300):
        text = "".join(
            chance.choice(["a", "bc ", ". ", "\n", "\n\n", "; ", "? ", "。", " ", "word ", "x, "]) for _ in range(80)
        )
        for longest in (1, 3, 10, 30):
            assert [tuple(piece) for piece in split(text, longest, words)] == expected(text, longest, words)
            assert [tuple(piece) for piece in split(text, longest, len)] == expected(text, longest, len)
