"""The old name of `ducto_redis.testing.plugin`, for pytest's `-p`."""

from ducto_redis.deprecation import warn_renamed

warn_renamed(__name__, "ducto_redis.testing.plugin", stacklevel=2)
pytest_plugins = ["ducto_redis.testing.plugin"]
