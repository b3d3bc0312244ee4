"""The old name of `ducto_redis.testing`."""

from ducto_redis.deprecation import moved_module

__getattr__ = moved_module(__name__, "ducto_redis.testing")
