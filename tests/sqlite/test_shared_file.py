"""The shared descriptor of a database file: one an inode, whole content, and SQLite's locks unbroken."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tp_retrieval.sqlite.shared_file import SharedFile

BLOCK = 1 << 18


def descriptors_of(file):
    """Return this process's descriptors of a file's inode."""
    status = file.stat()
    numbers = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            other = os.fstat(number)
        except OSError:  # the descriptor of the listing itself
            continue
        if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            numbers.append(number)
    return numbers


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_blocks_are_the_bytes_of_the_file_each_time(file, size):
    content = os.urandom(size)
    file.write_bytes(content)
    shared = SharedFile(file)
    assert b"".join(shared.blocks()) == content
    assert b"".join(shared.blocks()) == content
    shared.release()


def test_a_missing_file_is_created_empty(tmp_path):
    file = tmp_path / "new"
    shared = SharedFile(file)
    mask = os.umask(0)
    os.umask(mask)
    assert file.read_bytes() == b""
    assert file.stat().st_mode & 0o777 == 0o644 & ~mask
    shared.release()


def test_a_file_in_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedFile(tmp_path / "missing" / "file")
    assert not (tmp_path / "missing").exists()


def test_every_name_of_an_inode_shares_a_descriptor_that_closes_with_the_last_user(file):
    hard, soft = file.with_name("hard"), file.with_name("soft")
    hard.hardlink_to(file)
    soft.symlink_to(file)
    users = [SharedFile(path) for path in (file, hard, soft)]
    assert len(descriptors_of(file)) == 1
    for user in users[:2]:
        user.release()
    assert len(descriptors_of(file)) == 1
    assert b"".join(users[2].blocks()) == b"content"
    users[2].release()
    assert descriptors_of(file) == []


def test_a_second_release_takes_the_descriptor_from_nobody(file):
    first, second = SharedFile(file), SharedFile(file)
    first.release()
    first.release()
    assert b"".join(second.blocks()) == b"content"
    second.release()
    second.release()
    assert descriptors_of(file) == []


def test_two_files_have_a_descriptor_each(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"other content")
    users = [SharedFile(file), SharedFile(other)]
    assert [b"".join(user.blocks()) for user in users] == [b"content", b"other content"]
    users[0].release()
    assert descriptors_of(file) == []
    assert len(descriptors_of(other)) == 1
    users[1].release()


def test_the_descriptor_does_not_pass_to_another_program(file):
    shared = SharedFile(file)
    (number,) = descriptors_of(file)
    assert not os.get_inheritable(number)
    shared.release()


def test_is_at_compares_the_inode_and_not_the_content(file):
    shared = SharedFile(file)
    link = file.with_name("link")
    link.symlink_to(file)
    assert shared.is_at(file)
    assert shared.is_at(link)
    moved = file.rename(file.with_name("moved"))
    assert not shared.is_at(file)
    assert shared.is_at(moved)
    file.write_bytes(b"content")
    assert not shared.is_at(file)
    assert not shared.is_at(file / "below")
    shared.release()


def test_a_removed_file_can_be_read_until_the_release_and_a_new_one_at_its_path_is_another(file):
    old = SharedFile(file)
    file.unlink()
    file.write_bytes(b"new")
    new = SharedFile(file)
    assert b"".join(old.blocks()) == b"content"
    assert b"".join(new.blocks()) == b"new"
    old.release()
    assert b"".join(new.blocks()) == b"new"
    new.release()


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
    print("free")
except sqlite3.OperationalError as error:
    print(error)
"""


def lock_elsewhere(file):
    """Return what another process gets that wants to write."""
    command = [sys.executable, "-S", "-c", LOCK, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_reading_and_releasing_keep_sqlite_s_lock_that_another_descriptor_would_drop(tmp_path):
    file = tmp_path / "database"
    keeper = SharedFile(file)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE t(x)")
    connection.execute("BEGIN IMMEDIATE")
    reader = SharedFile(file)
    assert b"".join(reader.blocks())[:15] == b"SQLite format 3"
    reader.release()
    assert lock_elsewhere(file) == "database is locked"
    Path(file).read_bytes()  # which closes a descriptor of the file
    assert lock_elsewhere(file) == "free"
    connection.close()
    keeper.release()
