"""The database against connections of sqlite3's own: what is on disk, who sees it when, and which error is raised."""

import contextlib
import shutil
import sqlite3

import numpy as np
import pytest
import xxhash

from tp_retrieval.errors import CorruptIndexError, IndexAccessError, IndexLockedError, InputError
from tp_retrieval.sqlite.database import LOWER, Database, chunks, objects_made_by

TABLE = "CREATE TABLE t(x)"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture
def database(file):
    database = Database(file)
    database.enable_log()
    with database.transaction():
        database.execute(TABLE)
        database.execute_many("INSERT INTO t VALUES (?)", [(3,), (1,), (2,)])
    yield database
    database.close()


@pytest.fixture
def other(database, file):
    """Return a plain connection of sqlite3 to the same file."""
    connection = sqlite3.connect(file, timeout=0, isolation_level=None)
    yield connection
    connection.close()


def values(connection):
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY rowid")]


def test_a_new_file_is_write_ahead_logged_in_large_pages_and_flushed_at_each_commit(database, other):
    assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert other.execute("PRAGMA page_size").fetchall() == [(8192,)]
    assert database.execute("PRAGMA synchronous") == [(2,)]
    assert database.execute("PRAGMA trusted_schema") == [(0,)]
    assert database.execute("PRAGMA cell_size_check") == [(1,)]


def test_every_way_to_read_gives_what_sqlite3_gives(database, other):
    sql = "SELECT x, x * 10 FROM t WHERE x < ? ORDER BY x DESC"
    want = other.execute(sql, (3,)).fetchall()
    assert want == [(2, 20), (1, 10)]
    assert database.execute(sql, (3,)) == want
    assert list(database.each(sql, [3])) == want
    assert database.first(sql, (3,)) == want[0]
    assert database.first(sql, (0,)) is None
    numbers = database.numbers("SELECT x FROM t WHERE x < ? ORDER BY x DESC", (3,))
    assert (numbers.tolist(), numbers.dtype) == ([2, 1], np.dtype(np.int64))


def test_size_is_that_of_the_file_once_its_log_is_empty(database, file):
    database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert database.size() == file.stat().st_size > 100_000


def test_the_lower_case_function_is_python_s_and_leaves_other_values(database):
    ((text, number, nothing),) = database.execute(f"SELECT {LOWER}('ÀÉ Straße ΣΑΣ'), {LOWER}(7), {LOWER}(NULL)")
    assert (text, number, nothing) == ("ÀÉ Straße ΣΑΣ".lower(), 7, None)


def test_a_transaction_is_seen_by_others_whole_or_not_at_all(database, other):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (4)")
        database.execute("DELETE FROM t WHERE x = 1")
        assert values(other) == [3, 1, 2]
    assert values(other) == [3, 2, 4]

    def fail():
        with database.transaction():
            database.execute("DELETE FROM t")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert values(other) == values(database) == [3, 2, 4]


def test_a_snapshot_stays_at_one_moment_and_the_next_one_does_not(database, other):
    with database.snapshot():
        other.execute("INSERT INTO t VALUES (4)")
        assert values(database) == [3, 1, 2]
    with database.snapshot():
        assert values(database) == [3, 1, 2, 4]


def test_the_data_version_changes_with_the_commits_of_others(database, other):
    before = database.data_version()
    database.execute("INSERT INTO t VALUES (4)")
    assert database.data_version() == before
    other.execute("INSERT INTO t VALUES (5)")
    assert database.data_version() != before
    before = database.data_version()
    database.suspend()
    database.resume()
    assert database.data_version() != before, "another connection counts anew"


def test_a_transaction_within_another_is_refused_and_the_outer_one_goes_on(database, other):
    with database.transaction():
        database.execute("INSERT INTO t VALUES (4)")
        with pytest.raises(InputError, match="a call within another one"), database.transaction():
            pass
        with pytest.raises(InputError, match="a call within another one"), database.snapshot():
            pass
    assert values(other) == [3, 1, 2, 4]


def test_what_an_interrupted_call_left_open_is_rolled_back_by_the_next(database, other):
    def interrupted():
        block = database.transaction()
        block.__enter__()
        database.execute("DELETE FROM t")
        return block

    left = interrupted()
    with database.snapshot():
        assert values(database) == [3, 1, 2]
    with pytest.raises(IndexAccessError, match="no transaction is active"):
        left.__exit__(None, None, None)
    assert values(other) == [3, 1, 2]


def test_another_writer_is_named_at_once_where_no_wait_is_wanted(database, other, file):
    other.execute("BEGIN IMMEDIATE")
    with (
        database.impatient(),
        pytest.raises(IndexLockedError, match=f"{file}: another process is writing"),
        database.transaction(),
    ):
        pass
    assert database.execute("PRAGMA busy_timeout") == [(30_000,)]
    other.execute("ROLLBACK")
    with database.transaction():
        database.execute("INSERT INTO t VALUES (4)")
    assert values(other) == [3, 1, 2, 4]


@pytest.mark.parametrize(
    ("content", "sql"),
    [(b"no database at all, but some text " * 100, "SELECT 1 FROM sqlite_master"), (b"", "SELECT x FROM missing")],
    ids=["another format", "no such table"],
)
def test_damage_is_named_with_the_file(file, content, sql):
    file.write_bytes(content)

    def read():
        with contextlib.closing(Database(file)) as broken:
            broken.execute(sql)

    with pytest.raises(CorruptIndexError, match=str(file)):
        read()


def test_a_path_that_can_not_be_opened_is_named(tmp_path):
    with pytest.raises(IndexAccessError, match=f"can't open {tmp_path / 'missing' / 'index.sqlite'}"):
        Database(tmp_path / "missing" / "index.sqlite")


@pytest.mark.parametrize("call", ["execute", "first", "numbers", "transaction"])
def test_a_closed_database_refuses_every_call_and_closes_twice(database, call):
    assert not database.closed
    database.close()
    database.close()
    assert database.closed
    with pytest.raises(InputError, match="the index is closed"), contextlib.ExitStack() as stack:
        stack.enter_context(database.transaction()) if call == "transaction" else getattr(database, call)("SELECT 1")


@pytest.mark.parametrize("change", ["moved", "replaced"])
def test_a_file_that_is_no_longer_at_its_path_takes_no_transaction(database, file, change):
    copy = shutil.copy(file, file.with_name("copy"))
    file.rename(file.with_name("moved"))
    if change == "replaced":
        shutil.move(copy, file)
    with pytest.raises(IndexAccessError, match="was moved, removed or replaced"), database.transaction():
        database.execute("DELETE FROM t")
    with pytest.raises(IndexAccessError, match="was moved, removed or replaced"):
        database.check_place()
    assert not database._connection.in_transaction


def test_a_close_notes_the_digest_of_the_file_and_the_next_change_removes_it(database, file):
    database.close_with_checksum()
    noted = file.with_name("index.sqlite.xxh128")
    assert noted.read_text().split()[0] == xxhash.xxh3_128(file.read_bytes()).hexdigest()
    again = Database(file)
    with contextlib.closing(again):
        with again.snapshot():
            assert values(again) == [3, 1, 2]
        assert noted.exists()
        with again.transaction():
            assert not noted.exists(), "before the file changes"


def test_a_close_beside_a_reader_notes_nothing_and_closes(database, other, file):
    other.execute("BEGIN")
    assert values(other) == [3, 1, 2]
    database.execute("INSERT INTO t VALUES (4)")
    database.close_with_checksum()
    assert database.closed
    assert not file.with_name("index.sqlite.xxh128").exists()


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1203])
def test_chunks_are_the_values_in_order_in_parts_that_a_statement_takes(count):
    parts = list(chunks(range(count)))
    assert [value for part in parts for value in part] == list(range(count))
    assert all(0 < len(part) < 999 for part in parts)
    assert len(parts) == -(-count // 500)


@pytest.mark.parametrize("count", [0, 1, 500, 1203])
def test_select_in_finds_any_number_of_values_among_others(database, count):
    database.execute("CREATE TABLE numbers(n INTEGER, even INTEGER)")
    database.execute_many("INSERT INTO numbers VALUES (?, ?)", [(n, n % 2 == 0) for n in range(2000)])
    wanted = [3 * n for n in range(count)]
    sql = "SELECT n FROM numbers WHERE even = ? AND n IN (?)"
    found = [n for (n,) in database.select_in(sql, wanted, before=(1,))]
    assert sorted(found) == [n for n in wanted if n % 2 == 0 and n < 2000]


def test_a_number_that_is_none_is_damage(database):
    assert database.numbers("SELECT 7 UNION SELECT 5").tolist() == [5, 7]
    for value in ("NULL", "'many'", "9e99"):
        with pytest.raises(CorruptIndexError, match="a damaged number"):
            database.numbers(f"SELECT {value}")


def test_objects_are_those_that_the_statements_make(database, other):
    index = "CREATE INDEX i ON t(x)"
    assert database.objects() == objects_made_by([TABLE]) == {("table", "t", TABLE)}
    other.execute(index)
    assert database.objects() == objects_made_by([TABLE, index])
    assert database.objects() != objects_made_by([TABLE])


def test_a_schema_that_no_message_can_cite_is_damage(database, file):
    database.close_with_checksum()
    whole = file.read_bytes()
    assert whole.count(b"tablett") == 1  # the type, the name and the table's name of its entry
    file.write_bytes(whole.replace(b"tablett", b"table\xc9t"))
    with pytest.raises(CorruptIndexError, match=r"index\.sqlite: malformed database schema"):
        Database(file)


def test_a_vacuum_leaves_no_checksum_that_another_process_noted_before(tmp_path, monkeypatch):
    database = Database(tmp_path / "file")
    database.enable_log()
    database.execute("CREATE TABLE t(x)")
    real = database.execute

    def with_checksum(sql, values=()):
        if sql == "VACUUM":
            assert not database.checksum.exists()
            database.checksum.write()
        return real(sql, values)

    monkeypatch.setattr(database, "execute", with_checksum)
    database.checksum.write()
    database.vacuum()
    assert not database.checksum.exists()
    database.close()
