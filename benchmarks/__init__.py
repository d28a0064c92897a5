"""Benchmarks of the sorter; run from a checkout, not installed."""
