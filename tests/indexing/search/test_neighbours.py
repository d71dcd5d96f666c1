"""Hits with what stands around them, and one hit of each group."""

from datetime import date, datetime

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError, index_files

GUIDE = (
    "# One\n\n"
    + "\n\n".join(f"Apple line {i} here." for i in range(40))
    + "\n\n# Two\n\nPear stands alone.\n\n# Three\n\nLast.\n"
)


@pytest.fixture
def index(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "other.md").write_text("Apple line 7 there.\n")
    (folder / "plain.txt").write_text("\n\n".join(f"Word {i} stands here." for i in range(300)))
    with Index.create(tmp_path / "index", ToyEmbedder()) as index:
        index_files(index, [folder], chunk_tokens=4)
        index.add([Document("Apple of no file", {"section": {"name": "a"}}, "loose")])
        yield index


def chunks_of(index, path):
    documents = [document for document in index if document.metadata.get("path") == path]
    return sorted(documents, key=lambda document: document.metadata["chunk"])


def hit_of(index, id_, **options):
    (hit,) = index.search("apple", 1, ids=[id_], **options)
    return hit


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_so_many_chunks_before_and_after(index, count):
    chunks = chunks_of(index, "guide.md")
    assert len(chunks) > 42
    for place in (0, 1, 20, len(chunks) - 1):
        hit = hit_of(index, chunks[place].id, expand=count)
        want = chunks[max(place - count, 0) : place + count + 1]
        assert hit.document == chunks[place]
        assert hit.context == tuple(want)
        assert hit.passage == "\n\n".join(document.text for document in want)


def test_all_that_stands_under_the_same_headings(index):
    chunks = chunks_of(index, "guide.md")
    of_one = [document for document in chunks if document.metadata["headings"] == ["One"]]
    assert len(of_one) > 39
    for place in (0, 5, len(of_one) - 1):
        assert hit_of(index, of_one[place].id, expand="section").context == tuple(of_one)
    (pear,) = (document for document in chunks if "Pear" in document.text)
    assert hit_of(index, pear.id, expand="section").passage == "# Two\n\nPear stands alone."


def test_a_long_file_without_headings_is_not_read_whole(index):
    chunks = chunks_of(index, "plain.txt")
    assert hit_of(index, chunks[150].id, expand="section").context == tuple(chunks[150 - 64 : 150 + 65])


def test_a_document_of_no_file_has_no_context(index):
    hit = hit_of(index, "loose", expand=3)
    assert (hit.context, hit.passage) == ((), "Apple of no file")
    assert index.search("apple", 1)[0].context == ()


def test_a_gap_ends_the_context(index):
    chunks = chunks_of(index, "guide.md")
    index.delete([chunks[10].id])
    assert hit_of(index, chunks[12].id, expand=5).context == tuple(chunks[11:18])


def test_by_vector_and_in_lists_too(index):
    vector = ToyEmbedder().embed_queries(["apple line 7"])[0]
    (near,) = index.search_by_vector(vector, 1, expand=1)
    assert near.document in near.context
    results = index.search(["apple line 7", "last"], 2, expand=1)
    assert [[hit.document in hit.context for hit in hits] for hits in results] == [[True, True], [True, True]]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_the_best_hit_of_each_file(index, mode):
    everything = index.search("apple line 7", 1000, mode=mode)
    best = {}
    for hit in everything:
        best.setdefault(hit.document.metadata.get("path", hit.document.id), hit.document.id)
    for k in (1, 2, 3, 100):
        hits = index.search("apple line 7", k, mode=mode, group_by="path")
        assert [hit.document.id for hit in hits] == [*best.values()][:k]
        assert [hit.rank for hit in hits] == [*range(1, len(hits) + 1)]


def test_groups_by_a_nested_key_and_under_a_filter(index):
    index.add([Document(f"Apple {i}", {"section": {"name": "a" if i % 2 else "b"}}, f"n{i}") for i in range(10)])
    hits = index.search("apple", 5, group_by="section.name", where={"section": {"$exists": True}})
    assert sorted(hit.document.metadata["section"]["name"] for hit in hits) == ["a", "b"]


def test_groups_by_dates(index):
    days = [date(2024, 5, 1), datetime(2024, 5, 1, 12), date(2024, 5, 1)]
    index.add([Document(f"Apple {i}", {"when": day}, f"n{i}") for i, day in enumerate(days)])
    hits = index.search("apple", 5, group_by="when", where={"when": {"$exists": True}})
    assert sorted(hit.document.id for hit in hits) == ["n0", "n1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expand": -1}, "expand: -1 must be a number of chunks"),
        ({"expand": 10**20}, "must be a number of chunks up to 1000"),
        ({"expand": "page"}, "expand: 'page' must be"),
        ({"expand": True}, "expand: True must be"),
        ({"group_by": ""}, "group_by: '' must be a key"),
        ({"group_by": "path", "mmr": 0.5}, "mmr: choose either"),
    ],
)
def test_what_can_not_be_had(index, options, words):
    with pytest.raises(InputError, match=words):
        index.search("apple", 1, **options)
