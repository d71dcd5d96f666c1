"""Texts as token batches, and the pass over a model's blocks that reads their vectors."""
