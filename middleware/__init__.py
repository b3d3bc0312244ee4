"""ASGI middleware that charges credits for what model APIs consume.

`MeteringMiddleware` wraps an application, a `Recogniser` knows one API.
"""

if __name__ != "ducto_redis.middleware":
    raise ImportError(
        "`middleware` is a part of ducto_redis: write `from ducto_redis.middleware import MeteringMiddleware`"
    )

from ducto_redis.deprecation import moved_names
from ducto_redis.middleware import recognisers
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.background import meter_background
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.error_responses import BadRequestError, Refusal, refusal_for
from ducto_redis.middleware.estimates import CountTokens, Estimates
from ducto_redis.middleware.frameworks import meter_of
from ducto_redis.middleware.holds.learned import LearnedHolds
from ducto_redis.middleware.metering import MeteringMiddleware
from ducto_redis.middleware.recognisers import (
    Charge,
    FreeRecogniser,
    MeteredRequest,
    Recogniser,
    ResponseReader,
    SessionReader,
    SocketRecogniser,
)
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.settings import Disconnects, Holds, IdempotencyKeys, MeteredRoutes, Upstream
from ducto_redis.middleware.sse import ServerSentEvent
from ducto_redis.middleware.stored_answers import StoredAnswers

__all__ = [
    "ApiRequest",
    "BadRequestError",
    "Charge",
    "CountTokens",
    "Disconnects",
    "Estimates",
    "FreeRecogniser",
    "Headers",
    "Holds",
    "IdempotencyKeys",
    "LearnedHolds",
    "MeteredRequest",
    "MeteredRoutes",
    "MeteringCounts",
    "MeteringMiddleware",
    "Recogniser",
    "Refusal",
    "RequestMeter",
    "ResponseReader",
    "ServerSentEvent",
    "SessionReader",
    "SocketRecogniser",
    "StoredAnswers",
    "Upstream",
    "meter_background",
    "meter_of",
    "refusal_for",
]

_MOVED = {name: f"{recognisers.__name__}:{name}" for name in recognisers.__all__ if name not in __all__}
__getattr__ = moved_names(__name__, {"AnswerReader": f"{__name__}:ResponseReader", **_MOVED})
