"""Indexes that other libraries wrote."""
