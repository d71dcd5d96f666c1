"""Durable files: which inodes are flushed, in which order, and which digest is returned."""

import os

import pytest

from tp_retrieval.sqlite import atomic


@pytest.fixture
def flushed(monkeypatch):
    """Return the inodes that were flushed, in order, and the descriptors that were used."""
    inodes, descriptors = [], []
    fsync = os.fsync

    def recorded(descriptor):
        inodes.append(os.fstat(descriptor).st_ino)
        descriptors.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    return inodes, descriptors


def test_make_folder_flushes_the_parent_of_every_new_folder_from_the_top(tmp_path, flushed):
    atomic.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    parents = (tmp_path, tmp_path / "a", tmp_path / "a" / "b")
    assert flushed[0] == [parent.stat().st_ino for parent in parents]


def test_make_folder_leaves_an_existing_folder_alone(tmp_path, flushed):
    (tmp_path / "kept").write_text("kept")
    atomic.make_folder(tmp_path)
    assert flushed[0] == []
    assert (tmp_path / "kept").read_text() == "kept"


def test_make_folder_refuses_the_path_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(FileExistsError):
        atomic.make_folder(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_flush_folder_and_flush_file_flush_that_inode_and_close_it(tmp_path, flushed):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    atomic.flush_folder(tmp_path)
    atomic.flush_file(file)
    inodes, descriptors = flushed
    assert inodes == [tmp_path.stat().st_ino, file.stat().st_ino]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_failed_flush_is_raised_and_closes_the_folder(tmp_path, monkeypatch):
    descriptors = []

    def full(descriptor):
        descriptors.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.flush_folder(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])


@pytest.mark.parametrize("function", [atomic.flush_folder, atomic.flush_file])
def test_a_missing_path_is_an_os_error(tmp_path, function):
    with pytest.raises(FileNotFoundError):
        function(tmp_path / "missing")


def test_atomic_write_flushes_the_file_replaces_the_old_one_and_flushes_the_folder(tmp_path, flushed):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with atomic.atomic_write(file) as scratch:
        scratch.write_bytes(b"new")
        assert scratch.parent == tmp_path
        assert file.read_bytes() == b"old"
        written = scratch.stat().st_ino
    assert file.read_bytes() == b"new"
    assert flushed[0] == [written, tmp_path.stat().st_ino]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("scratch", [None, "file.tmp"])
def test_atomic_write_leaves_the_old_file_alone_where_the_block_raises(tmp_path, scratch):
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def interrupted():
        with atomic.atomic_write(file, scratch=scratch and tmp_path / scratch) as path:
            assert scratch in (None, path.name)
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
