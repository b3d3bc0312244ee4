"""OpenAI's moderations."""

from ducto_redis.middleware.recognisers.free import FreeRecogniser


class OpenAIModerations(FreeRecogniser):
    """`POST .../moderations`, which is free."""

    path_end = "/moderations"
