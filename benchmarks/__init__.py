"""Measurements of the running system, each `python -m benchmarks.NAME --json`."""
