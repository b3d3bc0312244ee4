"""Benchmarks that need servers of their own: a ledger's database, an application, what others would use instead.

What runs on any server stands in `ducto_redis/benchmark`, as `ducto bench`. See docs/benchmarks.md.
"""
