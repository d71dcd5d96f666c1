"""The tables of an index, and the numbered steps that bring an older format to this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from tp_retrieval.indexing.storage.fulltext import TOKENIZERS

if TYPE_CHECKING:
    from tp_retrieval.indexing.storage.store import Store

FORMAT = 2

_TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE documents(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vector BLOB NOT NULL,
    digest BLOB NOT NULL
)""",
    """CREATE TABLE facts(path TEXT NOT NULL, kind INTEGER NOT NULL, value NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(path, kind, value, seq)) WITHOUT ROWID""",
    "CREATE TABLE deletions(number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL)",
    """CREATE TABLE maps(view INTEGER PRIMARY KEY, postprocess TEXT NOT NULL, fitted_on INTEGER NOT NULL,
    digest BLOB NOT NULL)""",
    """CREATE TABLE map_arrays(view INTEGER NOT NULL, name TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY(view, name))""",
)


def statements(tokenizer: str) -> tuple[str, ...]:
    """Return what makes the tables of the present format."""
    words = "CREATE VIRTUAL TABLE fulltext USING fts5(text, content='documents', content_rowid='seq', tokenize='{}')"
    return (*_TABLES, words.format(TOKENIZERS[tokenizer]))


def _facts_deletions_and_digests(store: Store) -> None:
    """Format 2: facts for `where`, a log of deletions, a digest on every record that holds the row's number too."""
    execute = store.database.execute
    small = {}
    for name, columns in (("meta", 2), ("maps", 3), ("map_arrays", 4)):
        small[name] = [row[:columns] for row in execute(f"SELECT * FROM {name}")]
        execute(f"DROP TABLE {name}")
    for statement in _TABLES:
        if not statement.startswith("CREATE TABLE documents"):
            execute(statement)
    renamed = {"map_generation": "generation", "deletions": None, "snapshot": None, "kind": None}
    for key, value in small["meta"]:
        if (new := renamed.get(key, key)) is not None:
            store.meta.set(new, json.loads(value))
    store.meta.set("tokenizer", "words")
    store.meta.set("vectors", {"kind": "auto", "target_recall": 0.95, "tuning": None})
    for record in small["maps"]:
        store.maps.put(*record)
    for record in small["map_arrays"]:
        store.maps.put_array(*record)
    store.redigest_documents()


MIGRATIONS: dict[int, Callable[[Store], None]] = {1: _facts_deletions_and_digests}
"""From each older format, the step to the next one; each runs in a transaction."""
