"""Namespaces: documents that only calls which name them see."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy import SampledEmbedder, StretchEmbedder, ToyEmbedder, documents
from tp_retrieval import Document, Index, InputError, index_files
from tp_retrieval.indexing.storage.meta import FileSettings
from tp_retrieval.sqlite.database import Database

OURS = [replace(document, metadata={"n": n}) for n, document in enumerate(documents(40))]
THEIRS = [
    Document(f"{document.text} of theirs", {"n": n}, document.id) for n, document in enumerate(documents(60)) if n >= 20
]


def texts(hits):
    return sorted(hit.document.text for hit in hits)


@pytest.fixture
def index(tmp_path, toy):
    with Index.create(tmp_path / "index", toy) as made:
        made.add(OURS)
        made.add(THEIRS, namespace="theirs")
        yield made


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("options", [{}, {"where": {"n": {"$gte": 25}}}, {"ids": ["d25", "d30", "d50"]}])
def test_a_search_finds_what_an_index_of_that_namespace_alone_finds(index, tmp_path, toy, mode, options):
    if mode != "dense":
        options = options | {"candidates": 1000}
    for name, own in (("", OURS), ("theirs", THEIRS), ("nobody's", [])):
        with Index.create(tmp_path / f"alone-{name or 'ours'}", toy) as alone:
            alone.add(own)
            want = alone.search("water in the house", 100, mode=mode, **options)
            found = index.search("water in the house", 100, mode=mode, namespace=name, **options)
            assert texts(found) == texts(want)
            if mode == "dense":
                assert [hit.document for hit in found] == [hit.document for hit in want]


def test_a_vector_finds_documents_of_its_namespace_alone(index, toy):
    raw = toy.embed_queries(["water"])
    assert len(index.search_by_vector(raw[0], 100)) == 40
    (hits,) = index.search_by_vectors(raw, 100, namespace="theirs")
    assert texts(hits) == sorted(document.text for document in THEIRS)


def test_an_id_is_unique_within_its_namespace(index):
    index.add([Document("replaced", {}, "d20")], namespace="theirs")
    assert index.get(["d20"]) == [OURS[20]]
    assert [document.text for document in index.get(["d20", "d0"], namespace="theirs")] == ["replaced"]
    assert index.update({"d20": Document("replaced", {"new": True})}, namespace="theirs") == ["d20"]
    assert index.get(["d20"]) == [OURS[20]]
    with pytest.raises(InputError, match="there is no document 'd0'"):
        index.update({"d0": OURS[0]}, namespace="theirs")
    assert len(index) == 80


def test_counts_and_deletion_are_each_ones_own(index):
    assert index.namespaces() == {"": 40, "theirs": 40}
    assert index.info().namespaces == {"": 40, "theirs": 40}
    assert index.delete(["d0", "d20"], namespace="theirs") == 1
    assert index.delete(where={"n": {"$lt": 30}}) == 30
    assert index.namespaces() == {"": 10, "theirs": 39}
    assert index.clear(namespace="theirs") == 39
    assert index.namespaces() == {"": 10}
    assert index.clear(namespace="theirs") == 0
    assert index.get() == OURS[30:]
    assert index.search("theirs", mode="lexical", namespace="theirs") == []
    assert index.verify().problems == ()


def test_a_namespace_that_is_alone_is_cleared_with_the_maps(tmp_path):
    embedder = StretchEmbedder()
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(documents(160), namespace="only")
        assert index.info().fitted_on
        assert index.clear(namespace="only") == 160
        assert (index.info().fitted_on, len(index)) == (0, 0)


def test_what_is_known_of_other_namespaces_stays_when_one_is_cleared(tmp_path, toy):
    with Index.create(tmp_path / "i", toy) as index:
        for name in ("a", "b"):
            index.set_file_settings(FileSettings(f"/{name}"), namespace=name)
        index.add(["only b"], namespace="b")
        assert index.clear(namespace="nowhere") == 0
        assert index.clear(namespace="b") == 1
        assert (index.file_settings("a"), index.file_settings("b")) == (FileSettings("/a"), None)
        index.clear()
        assert index.file_settings("a") is None


def test_pages_batches_and_duplicates_are_of_one_namespace(index):
    assert index.get(namespace="theirs", offset=38) == THEIRS[38:]
    assert index.get(where={"n": 25}, namespace="theirs") == [THEIRS[5]]
    assert [document for batch, _ in index.batches(7, namespace="theirs") for document in batch] == THEIRS
    assert [document for batch, _ in index.batches(after="d38") for document in batch] == [OURS[39]]
    index.add([Document(OURS[3].text, {}, "copy"), Document(OURS[3].text, {}, "twin")], namespace="copies")
    assert not [pair for pair in index.duplicates(0.9999) if "copy" in (pair.id, pair.of)]
    assert [(pair.id, pair.of) for pair in index.duplicates(0.9999, namespace="copies")] == [("twin", "copy")]


def test_hits_stand_in_files_of_their_own_namespace(tmp_path, toy):
    for name, word in (("ours", "apple"), ("theirs", "pear")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("\n\n".join(f"{word} {i} stands here alone." for i in range(20)))
    with Index.create(tmp_path / "index", toy) as index:
        first = index_files(index, [tmp_path / "ours"], chunk_tokens=8)
        second = index_files(index, [tmp_path / "theirs"], namespace="theirs", chunk_tokens=16)
        assert (first.removed, second.removed, second.unchanged_files) == (0, 0, 0)
        (hit,) = index.search("pear 7", 1, mode="lexical", expand=2, namespace="theirs")
        assert "apple" not in hit.passage
        assert len(hit.context) > 1
        assert index.file_settings().root == str(tmp_path / "ours")
        assert index.file_settings("theirs").chunk_tokens == 16
        assert index.file_settings("nobody's") is None
        shutil.move(tmp_path / "theirs", tmp_path / "moved")
        moved = index_files(index, [tmp_path / "moved"], namespace="theirs")
        assert (moved.unchanged_files, moved.added, moved.removed) == (1, 0, 0)
        again = index_files(index, [tmp_path / "ours"])
        assert (again.unchanged_files, again.added, again.removed) == (1, 0, 0)
        index.clear(namespace="theirs")
        assert index.file_settings("theirs") is None
        assert index.file_settings().root == str(tmp_path / "ours")


@pytest.mark.parametrize("kind", [ToyEmbedder, StretchEmbedder, SampledEmbedder])
def test_a_merge_keeps_namespaces(tmp_path, kind):
    embedder = kind()
    with Index.create(tmp_path / "a", embedder) as first, Index.create(tmp_path / "b", embedder) as second:
        first.add(OURS)
        second.add(THEIRS, namespace="theirs")
        second.add([Document("loose", {}, "loose")])
        assert first.merge_from(second) == 41
        assert first.namespaces() == {"": 41, "theirs": 40}
        assert first.get(namespace="theirs") == THEIRS
        assert {hit.document.id for hit in first.search("theirs", 99, namespace="theirs")} == {d.id for d in THEIRS}
        with pytest.raises(InputError, match="the id 'loose' is in both"):
            first.merge_from(second)


def test_the_namespace_of_a_row_is_under_its_digest(index, tmp_path):
    index.close()
    with_database = Database(tmp_path / "index" / "index.sqlite")
    with with_database.transaction():
        with_database.execute("UPDATE documents SET namespace = 'ours' WHERE namespace = 'theirs' AND id = 'd20'")
        with_database.execute("UPDATE documents SET namespace = '' WHERE namespace = 'theirs' AND id = 'd59'")
    with_database.close()
    Path(tmp_path / "index" / "index.sqlite.xxh128").unlink(missing_ok=True)
    with Index.open(tmp_path / "index", ToyEmbedder()) as again:
        assert [problem for problem in again.verify().problems if "d20" in problem or "d59" in problem]
        assert again.verify(repair=True).ok
        assert again.namespaces() == {"": 40, "theirs": 38}


@pytest.mark.parametrize("name", [7, None, "\ud800"])
def test_a_name_that_is_no_text_is_refused(index, name):
    for call in (
        lambda: index.add(["x"], namespace=name),
        lambda: index.search("x", namespace=name),
        lambda: index.get(namespace=name),
        lambda: index.delete(["d0"], namespace=name),
        lambda: index.update({"d0": OURS[0]}, namespace=name),
        lambda: index.clear(namespace=7 if name is None else name),
        lambda: list(index.batches(namespace=name)),
        lambda: index.set_file_settings(FileSettings("/"), namespace=name),
    ):
        with pytest.raises(InputError, match="namespace: "):
            call()
    assert len(index) == 80


@pytest.mark.parametrize("name", ["a b", "x/y", "ä", "'; DROP TABLE documents; --", "\0", "*"])
def test_any_text_names_a_namespace(index, name):
    index.add(["word"], namespace=name)
    assert len(index.search("word", namespace=name)) == 1
    assert index.clear(namespace=name) == 1


def test_rows_of_other_namespaces_do_not_thin_out_a_search(tmp_path, toy, monkeypatch):
    from tp_retrieval.indexing.vectors import kinds

    monkeypatch.setattr(kinds, "TRAIN_AT", 600)
    with Index.create(tmp_path / "i", toy) as index:
        texts = [f"{a} {b} {c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"]
        index.add(texts, namespace="many")
        index.add([Document(text, {}, text) for text in texts[::60]], namespace="few")
        index.wait_until_built()
        assert index.info().tuning is not None
        hits = index.search("a k u", 10, mode="dense", namespace="few")
        raw = toy.embed_documents(["a k u", *texts[::60]]).astype(np.float64)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        assert [hit.score for hit in hits] == pytest.approx(np.sort(unit[1:] @ unit[0])[::-1].tolist(), abs=1e-5)
