"""ASGI middleware that charges credits for what model APIs consume.

`MeteringMiddleware` wraps an application, a `Recogniser` knows one API.
"""

if __name__ != "ducto_redis.middleware":
    raise ImportError(
        "`middleware` is a part of ducto_redis: write `from ducto_redis.middleware import MeteringMiddleware`"
    )

from ducto_redis.middleware.answers import BadRequestError, Refusal
from ducto_redis.middleware.estimates import CountTokens, Estimates
from ducto_redis.middleware.metering import MeteringMiddleware
from ducto_redis.middleware.recognisers import (
    AnswerReader,
    Charge,
    MeteredRequest,
    OpenAIChat,
    Recogniser,
)
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.sse import ServerSentEvent

__all__ = [
    "AnswerReader",
    "BadRequestError",
    "Charge",
    "CountTokens",
    "Estimates",
    "MeteredRequest",
    "MeteringMiddleware",
    "OpenAIChat",
    "Recogniser",
    "Refusal",
    "RequestMeter",
    "ServerSentEvent",
]
