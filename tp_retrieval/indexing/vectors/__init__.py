"""The vectors of an index in memory: FAISS, its kinds and tuning, and the snapshot on disk."""
