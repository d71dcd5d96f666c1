"""SQLite files that survive a kill, a power loss and a fork: transactions, locks, checksums and digests."""
