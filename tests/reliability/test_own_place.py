"""An index stays at the path where it was opened, and touches no file that is not its own."""

import os
import shutil

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, IndexAccessError
from tp_retrieval.indexing.verify import verify


def made(folder, *ids):
    with Index.create(folder, ToyEmbedder()) as index:
        index.add([Document(f"text {id_}", {}, id_) for id_ in ids])
    return folder


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def ids(index):
    return [document.id for document in index]


def in_a_child(work):
    """Run work in a forked child and return what it printed: its result, or its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(work())
        except Exception as error:
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


def test_an_index_opened_by_a_relative_path_stays_there_when_the_folder_changes(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    made(there / "i", "theirs")
    before = files(there / "i")
    monkeypatch.chdir(here)
    index = Index.create("i", ToyEmbedder())
    index.add([Document("text ours", {}, "ours")])
    monkeypatch.chdir(there)
    index.add([Document("text more", {}, "more")])
    assert in_a_child(lambda: ids(index)) == "['ours', 'more']"
    assert index.info().path == str(here / "i")
    index.close()
    assert files(there / "i") == before
    assert set(files(here / "i")) == {"index.sqlite", "index.sqlite.xxh128", "vectors-1.faiss"}
    assert verify(here / "i").ok


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_a_folder_that_is_removed_or_replaced_under_an_open_index_is_told_at_the_next_change(tmp_path, replaced):
    folder = made(tmp_path / "i", "one")
    index = Index.open(folder, ToyEmbedder())
    shutil.rmtree(folder)
    if replaced:
        made(folder, "theirs")
    before = files(folder) if replaced else None
    for change in (lambda: index.add(["two"]), index.clear, index.rebuild, lambda: index.verify(repair=True)):
        with pytest.raises(
            IndexAccessError, match="was moved, removed or replaced since it was opened; open the index again"
        ):
            change()
    assert ids(index) == [hit.document.id for hit in index.search("text")] == ["one"], "what was read stays readable"
    index.close()
    assert (files(folder) if replaced else None) == before
    assert folder.exists() == replaced


def test_a_fork_does_not_go_on_in_another_index_at_the_same_path(tmp_path):
    folder = made(tmp_path / "i", "one")
    index = Index.open(folder, ToyEmbedder())
    folder.rename(tmp_path / "moved")
    made(folder, "theirs")
    assert in_a_child(lambda: ids(index)) == "IndexAccessError"
    with pytest.raises(IndexAccessError, match="open the index again"):
        index.search("text")
    index.close()
    with Index.open(folder, ToyEmbedder()) as other:
        assert ids(other) == ["theirs"]


def test_foreign_files_and_folders_in_the_index_folder_survive_everything(tmp_path):
    folder = made(tmp_path / "i", "one")
    names = [
        "vectors-mine.npy",
        "vectors-.faiss",
        "vectors-99.faiss",
        "vectors-2.faiss",
        "vectors-3.tmp",
        "vectors-1.faiss.bak",
    ]
    names += ["index.sqlite.tmp", "index.sqlite.bak", "notes.txt"]
    for name in names:
        (folder / name).write_bytes(b"mine")
    folders = ["vectors-backup", "vectors-4.faiss", "vectors-5.tmp", "vectors-x.faiss"]
    for name in folders:
        (folder / name).mkdir()
        (folder / name / "inside").write_bytes(b"mine")
    (folder / "vectors-6.faiss").symlink_to(folder / "notes.txt")
    os.mkfifo(folder / "vectors-7.faiss")
    copy = folder / "vectors-20241124.faiss"  # FAISS's own format, but of a number that was never given out
    shutil.copy(folder / "vectors-1.faiss", copy)
    for i in range(9):
        with Index.open(folder, ToyEmbedder()) as index:
            index.add([Document(f"text {i}", {}, str(i))])
            index.rebuild()
            index.verify(repair=True)
    assert all((folder / name).read_bytes() == b"mine" for name in names)
    assert all((folder / name / "inside").read_bytes() == b"mine" for name in folders)
    assert (folder / "vectors-6.faiss").is_symlink()
    assert (folder / "vectors-7.faiss").is_fifo()
    assert copy.is_file()
    ours = {file.name for file in folder.iterdir()} - {*names, *folders, "vectors-6.faiss", "vectors-7.faiss", copy.name}
    assert len(ours) == 3, "and of our own snapshots one is left"
    assert verify(folder).ok


def test_what_a_killed_process_left_is_cleaned_away(tmp_path):
    folder = made(tmp_path / "i", "one")
    for name in ("vectors-2.faiss", "vectors-3.tmp", ".index.sqlite.xxh128-abcd_123"):
        shutil.copy(folder / "vectors-1.faiss", folder / name)
    with Index.open(folder, ToyEmbedder()) as index:
        index.add([Document("text two", {}, "two")])
    assert set(files(folder)) == {"index.sqlite", "index.sqlite.xxh128", "vectors-4.faiss"}


def test_a_new_folder_is_durable_in_the_one_above_it(tmp_path, monkeypatch):
    """POSIX keeps a new folder's name only once the folder above it is synced."""
    from tp_retrieval.sqlite import atomic as disk

    synced = []
    real = disk.flush_folder
    monkeypatch.setattr(disk, "flush_folder", lambda folder: (synced.append(folder), real(folder)))
    made(tmp_path / "a" / "b" / "i", "one")
    assert synced[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


@pytest.mark.parametrize("work", ["create", "open"])
def test_a_relative_path_from_a_folder_that_is_gone_is_named(tmp_path, monkeypatch, work):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(IndexAccessError, match="can't tell where i lies"):
        getattr(Index, work)("i", ToyEmbedder())
