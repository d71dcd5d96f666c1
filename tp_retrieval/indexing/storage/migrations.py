"""The numbered steps that bring the file of an older format to the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tp_retrieval.indexing.storage.fitted_maps import FittedMaps
from tp_retrieval.indexing.storage.meta import MetaTable, parsed_json
from tp_retrieval.indexing.storage.metadata_index import MetadataIndex
from tp_retrieval.indexing.storage.schema import TABLES
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import check_record, record_digest


def _to_format_2(database: Database) -> None:
    """Add facts for `where`, a log of deletions, and digests that cover a record's key."""
    old = {}
    for name, columns in (("meta", 2), ("maps", 3), ("map_arrays", 4)):
        old[name] = [row[:columns] for row in database.execute(f"SELECT * FROM {name}")]
        database.execute(f"DROP TABLE {name}")
    for statement in TABLES:
        if not statement.startswith("CREATE TABLE documents"):
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


MIGRATIONS: Mapping[int, Callable[[Database], None]] = {1: _to_format_2}
"""The step from each older format to the next one; it runs in a transaction."""
