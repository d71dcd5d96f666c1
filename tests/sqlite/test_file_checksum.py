"""The digest beside a database file: its bytes on disk, what it accepts, and what a failed write leaves."""

import os

import pytest
import xxhash

from tp_retrieval.errors import IndexAccessError
from tp_retrieval.sqlite.file_checksum import FileChecksum
from tp_retrieval.sqlite.shared_file import SharedFile


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "index.sqlite"
    path.write_bytes(os.urandom((1 << 18) + 5))
    return path


@pytest.fixture
def noted(file):
    """Return the path of the digest."""
    return file.with_name("index.sqlite.xxh128")


@pytest.fixture
def checksum(file):
    shared = SharedFile(file)
    yield FileChecksum(file, shared)
    shared.release()


def line_of(file):
    return f"{xxhash.xxh3_128(file.read_bytes()).hexdigest()}  {file.name}\n".encode()


def test_write_notes_the_line_of_xxhsum(checksum, file, noted):
    assert not checksum.exists()
    checksum.write()
    assert noted.read_bytes() == line_of(file)
    assert checksum.exists()
    assert checksum.intact()


def test_without_a_digest_a_file_is_intact(checksum, noted):
    assert checksum.intact()
    assert not noted.exists()


@pytest.mark.parametrize("position", [0, 1 << 17, -1])
def test_a_changed_byte_is_not_intact(checksum, file, position):
    checksum.write()
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert not checksum.intact()
    content[position] ^= 1
    file.write_bytes(content)
    assert checksum.intact()


def test_a_lost_end_is_not_intact(checksum, file):
    checksum.write()
    os.truncate(file, file.stat().st_size - 1)
    assert not checksum.intact()


def test_another_file_s_name_in_the_line_is_not_intact(checksum, file, noted):
    noted.write_bytes(line_of(file).replace(b"index.sqlite", b"other.sqlite"))
    assert not checksum.intact()


def test_refuse_holds_until_the_file_is_written_anew(checksum, noted):
    checksum.refuse()
    assert noted.read_bytes() == b"damaged\n"
    assert checksum.exists()
    assert not checksum.intact()
    checksum.write()
    assert checksum.intact()


def test_remove_is_durable_and_a_second_one_is_no_error(checksum, noted, monkeypatch):
    checksum.write()
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    checksum.remove()
    assert not noted.exists()
    assert flushed == [noted.parent.stat().st_ino]
    checksum.remove()
    assert not checksum.exists()


def test_a_digest_that_can_not_be_removed_or_read_is_named_and_not_intact(checksum, noted):
    noted.mkdir()
    assert not checksum.intact()
    with pytest.raises(IndexAccessError, match=f"can't remove {noted}"):
        checksum.remove()


def test_the_digest_has_the_permissions_of_the_file(checksum, file, noted):
    file.chmod(0o640)
    checksum.write()
    assert noted.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_digest_before_and_no_scratch(checksum, file, noted, monkeypatch):
    checksum.write()
    before = noted.read_bytes()
    file.write_bytes(b"changed")

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        checksum.write()
    assert noted.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["index.sqlite", "index.sqlite.xxh128"]


def test_the_scratch_of_a_killed_process_is_removed_and_nothing_else(checksum, file, noted):
    scratch = file.with_name(".index.sqlite.xxh128-abcdefgh")
    others = [file.with_name(name) for name in (".index.sqlite.xxh128-abc", "other.sqlite.xxh128-abcdefgh")]
    for path in (scratch, *others):
        path.write_bytes(b"")
    checksum.write()
    assert not scratch.exists()
    assert all(path.exists() for path in others)
    assert noted.read_bytes() == line_of(file)


class WrittenMeanwhile:
    """A file that another process changes, with a new digest, between the read of the digest and of the file."""

    def __init__(self, file, noted):
        self.file, self.noted, self.reads = file, noted, 0

    def blocks(self):
        self.reads += 1
        if self.reads == 1:
            self.file.write_bytes(b"written meanwhile")
            self.noted.write_bytes(line_of(self.file))
            yield b"half of both"
        else:
            yield self.file.read_bytes()


def test_a_file_that_is_written_meanwhile_is_compared_again(checksum, file, noted):
    checksum.write()
    meanwhile = WrittenMeanwhile(file, noted)
    assert FileChecksum(file, meanwhile).intact()
    assert meanwhile.reads == 2
