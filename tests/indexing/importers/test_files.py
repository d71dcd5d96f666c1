"""An index that follows files: what is embedded, what is kept, and what is deleted, with an embedder that counts."""

import itertools

import pytest

from tests.toy import SampledEmbedder, StretchEmbedder, ToyEmbedder
from tp_retrieval import Index, InputError
from tp_retrieval.documents.sources import find, read
from tp_retrieval.indexing.importers.files import FileChanges, FileImporter, refit_if_grown


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# One\n\nFirst words.\n\n# Two\n\nSecond words.\n")
    (folder / "b.txt").write_text("Third words.")
    return folder


@pytest.fixture
def embedder():
    return ToyEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with Index.create(tmp_path / "index", embedder) as index:
        yield index


def update(index, paths, folders=(), tokens=16):
    importer = FileImporter(index, lambda text: len(text.split()), tokens)
    return importer.update([read(path) for path in find(paths)], folders)


def texts(index):
    return sorted(document.text for document in index)


def test_only_changed_files_are_embedded_again(index, embedder, folder):
    assert update(index, [folder], [folder]) == FileChanges(0, 3, 0)
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words."]
    assert update(index, [folder], [folder]) == FileChanges(2, 0, 0)
    (folder / "a.md").write_text("# One\n\nOther words.\n")
    embedder.embedded.clear()
    assert update(index, [folder], [folder]) == FileChanges(1, 1, 1)
    assert embedder.embedded == ["# One\n\nOther words."]
    assert texts(index) == ["# One\n\nOther words.", "Third words."]
    assert update(index, [folder], [folder], tokens=2).unchanged_files == 0


def test_a_missing_file_is_removed_only_below_a_folder_that_was_read(index, folder, tmp_path):
    (tmp_path / "alone.txt").write_text("Alone.")
    update(index, [folder, tmp_path / "alone.txt"], [folder])
    (folder / "b.txt").unlink()
    assert update(index, [folder / "a.md"]) == FileChanges(1, 0, 0)
    assert "Third words." in texts(index)
    assert update(index, [folder], [folder]) == FileChanges(1, 0, 1)
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Alone."]


def test_an_id_of_another_file_is_refused_before_anything_changes(index, folder):
    (folder / "c.jsonl").write_text('{"id": "x", "text": "mine"}\n')
    update(index, [folder], [folder])
    (folder / "b.txt").unlink()
    (folder / "d.jsonl").write_text('{"id": "new", "text": "new"}\n{"id": "x", "text": "yours"}\n')
    with pytest.raises(InputError, match=r"d\.jsonl: the id 'x' is taken by .*c\.jsonl"):
        update(index, [folder], [folder])
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words.", "mine"]


def test_documents_of_no_file_stay(index, folder):
    index.add(["from elsewhere"])
    update(index, [folder], [folder])
    (folder / "a.md").unlink()
    update(index, [folder], [folder])
    assert texts(index) == ["Third words.", "from elsewhere"]


def test_an_interrupted_update_embeds_the_rest(index, embedder, folder, monkeypatch):
    monkeypatch.setattr("tp_retrieval.indexing.importers.files._BATCH", 1)
    original = Index.add

    def interrupted(self, documents):
        if documents[0].text.startswith("# Two"):
            raise KeyboardInterrupt
        return original(self, documents)

    monkeypatch.setattr(Index, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(index, [folder], [folder])
    assert texts(index) == ["# One\n\nFirst words."]
    monkeypatch.setattr(Index, "add", original)
    assert update(index, [folder], [folder]) == FileChanges(0, 2, 0)
    assert embedder.embedded == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words."]


def test_the_time_left_is_told_once_after_the_second_batch(index, tmp_path, monkeypatch):
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {i} has just six words." for i in range(400)))
    clock = itertools.count(100.0, 2.0)
    monkeypatch.setattr("tp_retrieval.indexing.importers.files.time.perf_counter", lambda: next(clock))
    told = []
    importer = FileImporter(index, lambda text: len(text.split()), 16, lambda *estimate: told.append(estimate))
    changes = importer.update([read(path) for path in find([tmp_path / "long.txt"])], [])
    assert changes.added > 128
    left = changes.added - 128
    assert told == [(left, pytest.approx(2.0 * left / 64))]


def test_stretches_that_are_missing_are_read_when_maps_are_fitted_anew(tmp_path):
    embedder = StretchEmbedder()
    added = [f"a text of several words {i} about {'cats' if i % 3 else 'dogs'}" for i in range(30)]
    with Index.create(tmp_path / "within", embedder) as index:
        index.add(added, vectors=embedder.embed_documents(added))
        assert index.info().unread == 30
        refit_if_grown(index)
        assert index.info().fitted == ("within:8", "within:4")
        embedder.embedded.clear()
        refit_if_grown(index)
        assert embedder.embedded == []


def test_an_update_in_batches_reads_no_more_than_one_add_and_keeps_the_order(tmp_path):
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {i} has just six words." for i in range(400)))
    with Index.create(tmp_path / "index", SampledEmbedder()) as index:
        importer = FileImporter(index, lambda text: len(text.split()), 16)
        assert importer.update([read(tmp_path / "long.txt")], []).added > 128
        assert index._store.documents.count_wholly_read() == 24
        stored = [int(document.text.split()[1]) for document in index]
        assert stored == sorted(stored)
