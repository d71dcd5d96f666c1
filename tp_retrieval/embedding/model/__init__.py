"""The model: its source, loading, device and fingerprint."""
