"""The numbered steps that bring the file of an older format to the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.storage.fitted_maps import FittedMaps
from tp_retrieval.indexing.storage.meta import MetaTable, parsed_json
from tp_retrieval.indexing.storage.metadata_index import MetadataIndex
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import check_record, record_digest

_FORMAT_2 = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE facts(path TEXT NOT NULL, kind INTEGER NOT NULL, value NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(path, kind, value, seq)) WITHOUT ROWID""",
    "CREATE TABLE deletions(number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL)",
    """CREATE TABLE maps(view INTEGER PRIMARY KEY, postprocess TEXT NOT NULL, fitted_on INTEGER NOT NULL,
    digest BLOB NOT NULL)""",
    """CREATE TABLE map_arrays(view INTEGER NOT NULL, name TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY(view, name))""",
)
_FORMAT_3 = """CREATE TABLE stretches(seq INTEGER NOT NULL, view INTEGER NOT NULL, priority INTEGER NOT NULL,
    count INTEGER NOT NULL, data BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(view, priority, seq))"""

_FORMAT_5 = """CREATE TABLE documents(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vector BLOB NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE(namespace, id)
)"""


def _to_format_2(database: Database) -> None:
    """Add facts for `where`, a log of deletions, and digests that cover a record's key."""
    old = {}
    for name, columns in (("meta", 2), ("maps", 3), ("map_arrays", 4)):
        old[name] = [row[:columns] for row in database.execute(f"SELECT * FROM {name}")]
        database.execute(f"DROP TABLE {name}")
    for statement in _FORMAT_2:
        database.execute(statement)
    meta, maps = MetaTable(database), FittedMaps(database)
    renamed: dict[str, str | None] = {"map_generation": "generation", "deletions": None, "snapshot": None, "kind": None}
    for key, value in old["meta"]:
        if (new := renamed.get(key, key)) is not None:
            meta.set(new, parsed_json(database.file, f"meta record {key!r}", value))
    meta.set("tokenizer", "words")
    meta.set("vectors", {"kind": "auto", "target_recall": 0.95, "tuning": None})
    for record in old["maps"]:
        maps.put(*record)
    for record in old["map_arrays"]:
        maps.put_array(*record)
    _digest_documents_anew(database)


def _digest_documents_anew(database: Database) -> None:
    """Check each row against its digest of format 1, and give it one of format 2 and its facts."""
    metadata_index = MetadataIndex(database)
    for seq in database.numbers("SELECT seq FROM documents").tolist():
        sql = "SELECT id, text, metadata, vector, digest FROM documents WHERE seq = ?"
        ((*values, digest),) = database.execute(sql, (seq,))
        check_record(database.file, f"record {seq} (id {values[0]!r})", digest, *values)
        database.execute("UPDATE documents SET digest = ? WHERE seq = ?", (record_digest(seq, *values), seq))
        metadata_index.insert([(seq, parsed_json(database.file, f"record {seq}", values[2]))])


def _to_format_3(database: Database) -> None:
    """Add the table of stretches, and to each view whether stretches are read as queries."""
    database.execute(_FORMAT_3)
    meta = MetaTable(database)
    views, provenance = meta.get("views"), meta.get("provenance")
    recipe_views = (provenance or {}).get("recipe", {}).get("views", [])
    if isinstance(views, list) and len(views) == len(recipe_views):  # else an embedder with fitted maps, or one's own
        read = zip(views, recipe_views, strict=True)
        meta.set("views", [{**view, "asymmetric": made.get("readout") != "mean"} for view, made in read])


def _to_format_4(database: Database) -> None:
    """Add the precision of raw vectors; rows in half precision are not read by an older version."""
    MetaTable(database).set("raw", "float32")


def _to_format_5(database: Database) -> None:
    """Add the namespace of a document, by which its id is unique; rows keep their numbers, and those of removed ones."""
    ((last,),) = database.execute(
        "SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'documents'), 0), "
        "coalesce((SELECT max(seq) FROM documents), 0), coalesce((SELECT max(seq) FROM deletions), 0))"
    )
    database.execute("ALTER TABLE documents RENAME TO documents_4")
    database.execute(_FORMAT_5)
    database.execute(
        "INSERT INTO documents SELECT seq, '', id, text, metadata, vector, digest FROM documents_4 ORDER BY seq"
    )
    database.execute("DROP TABLE documents_4")
    database.execute("DELETE FROM sqlite_sequence WHERE name = 'documents'")
    database.execute("INSERT INTO sqlite_sequence VALUES ('documents', ?)", (last,))
    meta = MetaTable(database)
    with suppress(CorruptIndexError):  # an index works without this record
        if (settings := meta.get("files")) is not None:
            meta.set("files", {"": settings})


MIGRATIONS: Mapping[int, Callable[[Database], None]] = {
    1: _to_format_2,
    2: _to_format_3,
    3: _to_format_4,
    4: _to_format_5,
}
"""The step from each older format to the next one; it runs in a transaction."""
