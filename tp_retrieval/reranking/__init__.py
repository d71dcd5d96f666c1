"""Hits -> hits in a better order, by a second look at query and document together."""
