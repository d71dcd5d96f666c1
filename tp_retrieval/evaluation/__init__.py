"""Measure embedders on labelled data: metrics with their uncertainty, ablation, tuning."""
