"""Objectives: what tuning maximises on labelled data."""
