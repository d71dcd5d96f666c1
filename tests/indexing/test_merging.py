"""Merging indexes with their raw vectors, and reading documents page by page."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.toy import SampledEmbedder, StretchEmbedder, ToyEmbedder, documents
from tp_retrieval import Document, IncompatibleIndexError, Index, InputError

DOCUMENTS = documents(160)
ROOT = Path(__file__).parents[2]


def index_of(path, embedder, rows):
    index = Index.create(path, embedder)
    index.add(rows)
    return index


@pytest.mark.parametrize("kind", [ToyEmbedder, StretchEmbedder, SampledEmbedder])
def test_merged_indexes_find_what_one_of_all_documents_finds(kind, tmp_path):
    embedder = kind()
    with (
        index_of(tmp_path / "all", embedder, DOCUMENTS) as whole,
        index_of(tmp_path / "first", embedder, DOCUMENTS[:100]) as first,
        index_of(tmp_path / "second", embedder, DOCUMENTS[100:]) as second,
    ):
        before = len(embedder.embedded)
        assert first.merge_from(second) == 60
        assert len(embedder.embedded) == before
        assert list(first) == DOCUMENTS
        assert len(second) == 60
        whole.rebuild()
        first.rebuild()
        assert first.info().maps_digest == whole.info().maps_digest
        if kind is SampledEmbedder:  # each of the two had read a sample of its own; the sample of both is the whole one's
            return
        for query in ("a cat in the house", "light water", "12"):
            want = [(hit.document, pytest.approx(hit.score, abs=1e-5)) for hit in whole.search(query, 8)]
            assert [(hit.document, hit.score) for hit in first.search(query, 8)] == want


def test_a_merge_is_there_when_the_index_is_opened_again(toy, tmp_path):
    with index_of(tmp_path / "a", toy, DOCUMENTS[:3]) as first, index_of(tmp_path / "b", toy, DOCUMENTS[3:5]) as second:
        first.merge_from(second)
    with Index.open(tmp_path / "a", toy) as again:
        assert list(again) == DOCUMENTS[:5]
        assert again.verify().problems == ()
        assert again.search(DOCUMENTS[4].text, 1)[0].document == DOCUMENTS[4]


def test_half_precision_and_whole_merge(toy, tmp_path):
    with Index.create(tmp_path / "a", toy, raw="float16") as half, index_of(tmp_path / "b", toy, DOCUMENTS[:9]) as whole:
        half.merge_from(whole)
        (_, got), (_, want) = next(half.batches()), next(whole.batches())
        assert np.allclose(got, want, atol=1e-3)
        assert whole.merge_from(index_of(tmp_path / "c", toy, [])) == 0


def test_an_id_of_both_is_refused_and_nothing_is_added(toy, tmp_path):
    with (
        index_of(tmp_path / "a", toy, DOCUMENTS[:3]) as first,
        index_of(tmp_path / "b", toy, [Document("new", {}, "x"), Document("other", {}, "d2")]) as second,
    ):
        with pytest.raises(InputError, match="other: the id 'd2' is in both indexes"):
            first.merge_from(second)
        with pytest.raises(InputError, match="the id 'd0' is in both"):
            first.merge_from(first)
        assert list(first) == DOCUMENTS[:3]


def test_another_embedder_is_refused(toy, tmp_path):
    with (
        index_of(tmp_path / "a", toy, DOCUMENTS[:3]) as first,
        index_of(tmp_path / "b", ToyEmbedder("other"), DOCUMENTS[3:5]) as second,
        pytest.raises(IncompatibleIndexError, match=r"fingerprints toy and other\); add the texts instead"),
    ):
        first.merge_from(second)


def test_documents_are_read_in_pages(toy, tmp_path):
    with index_of(tmp_path / "a", toy, [Document(f"text {i}", {"even": i % 2 == 0}, f"i{i}") for i in range(7)]) as index:
        ids = [f"i{i}" for i in range(7)]
        for limit in (None, 0, 1, 3, 9):
            for offset in (0, 2, 6, 8):
                page = slice(offset, None if limit is None else offset + limit)
                assert [d.id for d in index.get(limit=limit, offset=offset)] == ids[page]
                assert [d.id for d in index.get(where={"even": True}, limit=limit, offset=offset)] == ids[::2][page]
                reverse = ["i5", "no", "i3", "i1"]
                assert [d.id for d in index.get(reverse, limit=limit, offset=offset)] == ["i5", "i3", "i1"][page]
        with pytest.raises(InputError, match="limit: -1 must be a number of documents, 0 or more"):
            index.get(limit=-1)
        with pytest.raises(InputError, match=r"offset: 1\.5 must be"):
            index.get(offset=1.5)


def test_a_merge_and_vectors_beside_a_close_are_refused_and_end_no_process(tmp_path):
    """What the index was made by is read under its lock: SQLite's connections end the process that closes one in use."""
    code = """
import sys, threading, time
import numpy as np
from tests.toy import ToyEmbedder
from tp_retrieval import Index, TPRetrievalError

def work(index, other):
    none = np.zeros((0, index.embedder.dimension), np.float32)
    while True:
        try:
            index.add_vectors([], none, fingerprint=index.embedder.fingerprint)
            index.merge_from(other)
        except TPRetrievalError as error:
            assert "closed" in str(error), error
            return

for n in range(40):
    index, other = (Index.create(f"{sys.argv[1]}/{name}{n}", ToyEmbedder()) for name in ("i", "o"))
    threads = [threading.Thread(target=work, args=(index, other)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.005)
    index.close()
    for thread in threads:
        thread.join()
    other.close()
print("held")
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
