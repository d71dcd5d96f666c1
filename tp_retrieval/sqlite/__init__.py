"""Files that survive: one SQLite file, its locks, its checksum, and what a fork or a power cut may do to them."""
