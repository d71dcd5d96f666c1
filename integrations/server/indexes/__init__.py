"""The indexes of a server: by name, written to, and in long work."""
