"""What `info` says to people, of indexes of every kind."""

from dataclasses import replace

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Index, index_files
from tp_retrieval.cli.info import summary_of
from tp_retrieval.indexing.storage.meta import Tuning


@pytest.fixture
def described(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("text")
    with Index.create(tmp_path / "index", ToyEmbedder("of mine"), tokenizer="trigram") as index:
        index_files(index, [tmp_path / "docs"], chunk_tokens=99, include=["*.md"], exclude=["drafts/", "*.tmp"])
        yield index.info()


def test_what_an_embedder_of_ones_own_and_files_say(described, tmp_path):
    rows = summary_of(described)
    assert rows == {
        "index": str(tmp_path / "index"),
        "documents": f"1, {described.bytes_on_disk / 1e6:.1f} MB on disk",
        "files": f"{tmp_path / 'docs'}; chunks of 99 tokens; only *.md; without drafts/; without *.tmp",
        "model": "of mine (its vectors come from elsewhere)",
        "vectors": "16 numbers",
        "search": "exact",
        "words": "three letters each",
    }


@pytest.mark.parametrize(
    ("views", "want"),
    [
        ([{"exit": 1, "readout": "mean"}], "16 numbers (mean after block 1)"),
        ([{"exit": 1, "readout": "mean"}, {"exit": 28, "readout": "last"}], "(mean after block 1 and last after block 28)"),
        ([{"exit": 0, "readout": "mean"}], "(mean of the input embeddings)"),
        ([{"exit": None, "readout": "last"}], "(last after all blocks)"),
        ([{"exit": -1, "readout": "last"}], "(last after all blocks but 1)"),
    ],
)
def test_what_of_the_model_is_read(described, views, want):
    assert want in summary_of(replace(described, recipe={"views": views}))["vectors"]


def test_how_it_is_searched_and_what_should_be_done(described):
    tuning = Tuning("PQ8x4fs,RFlat", 10_000, "", 3, 0.95, 0.993)
    rows = summary_of(
        replace(
            described, tuning=tuning, growth=1.5, unread=7, fallbacks=("view 0 has no map",), files={}, source="org/name"
        )
    )
    assert rows["search"] == "PQ8x4fs,RFlat, which finds at least 99% of the ten nearest"
    assert rows["hints"].splitlines() == [
        "view 0 has no map",
        "1.5 times the documents that maps were fitted on: `tp-retrieval rebuild` fits anew",
        "7 documents must be read for a map: `tp-retrieval rebuild` does",
    ]
    assert rows["model"] == "org/name"
    assert "files" not in rows
