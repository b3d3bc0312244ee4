"""Benchmarks: each figure is a ratio to its limit, measured in the same run. See docs/benchmarks.md."""
