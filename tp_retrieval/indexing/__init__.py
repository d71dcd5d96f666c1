"""Vectors to an index on disk. faiss and sqlite3 live here."""
