"""The tables of an index's SQLite file."""
