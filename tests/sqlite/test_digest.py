"""Digests of files and records, against hashlib."""

import hashlib
import os
from pathlib import Path

import pytest

from tp_retrieval import CorruptIndexError
from tp_retrieval.sqlite.digest import check_record, file_digest, record_digest


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 20) + 7])
def test_a_files_digest_is_sha256_of_all_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_has_no_digest(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "missing")


def test_a_records_digest_is_sha256_of_each_value_after_its_length():
    want = hashlib.sha256((2).to_bytes(8, "little") + b"ab" + (2).to_bytes(8, "little") + b"17").digest()
    assert record_digest("ab", 17) == record_digest(b"ab", "17") == want
    assert record_digest("a", "b17") != want


def test_a_damaged_record_is_named():
    check_record(Path("index.sqlite"), "record 3", record_digest("ab", 17), "ab", 17)
    with pytest.raises(CorruptIndexError, match=r"index\.sqlite: record 3 is damaged"):
        check_record(Path("index.sqlite"), "record 3", record_digest("ab", 17), "ab", 18)
