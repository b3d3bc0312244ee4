"""The old place of `ducto_redis.testing.test_suite`, for pytest's `--pyargs`."""

from importlib import import_module

TestStore = import_module("ducto_redis.testing.test_suite").TestStore
