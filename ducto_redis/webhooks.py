"""The old name of `ducto_redis.events.signature`."""

from ducto_redis.deprecation import moved_module

__getattr__ = moved_module(__name__, "ducto_redis.events.signature")
