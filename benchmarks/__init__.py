"""Benchmarks: what each measures, its command and its minutes are in README.md beside this file."""
