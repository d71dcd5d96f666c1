"""The tables of an index."""

from __future__ import annotations

from tp_retrieval.indexing.storage.fulltext import TOKENIZERS

TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE documents(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vector BLOB NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE(namespace, id)
)""",
    """CREATE TABLE facts(path TEXT NOT NULL, kind INTEGER NOT NULL, value NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(path, kind, value, seq)) WITHOUT ROWID""",
    "CREATE TABLE deletions(number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL)",
    """CREATE TABLE maps(view INTEGER PRIMARY KEY, postprocess TEXT NOT NULL, fitted_on INTEGER NOT NULL,
    digest BLOB NOT NULL)""",
    """CREATE TABLE map_arrays(view INTEGER NOT NULL, name TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY(view, name))""",
    """CREATE TABLE stretches(seq INTEGER NOT NULL, view INTEGER NOT NULL, priority INTEGER NOT NULL,
    count INTEGER NOT NULL, data BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(view, priority, seq))""",
)


def statements(tokenizer: str) -> tuple[str, ...]:
    """Return the statements that create the tables of the present format."""
    words = "CREATE VIRTUAL TABLE fulltext USING fts5(text, content='documents', content_rowid='seq', tokenize='{}')"
    return (*TABLES, words.format(TOKENIZERS[tokenizer]))
