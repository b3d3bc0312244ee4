"""Recognisers of APIs: the most that a request may cost, and the usage that its response reports.

Each provider has a folder, whose `__all__` and `DEFAULT_RECOGNISERS` this module gathers.
"""

# ruff: noqa: F403 (each name stands in the `__all__` of its provider, and nowhere else)

from ducto_redis.deprecation import moved_names
from ducto_redis.middleware.recognisers import anthropic, bedrock, cohere, google, ollama, openai
from ducto_redis.middleware.recognisers.anthropic import *
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.bedrock import *
from ducto_redis.middleware.recognisers.cohere import *
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.genai_prices import GenaiPrices
from ducto_redis.middleware.recognisers.google import *
from ducto_redis.middleware.recognisers.ollama import *
from ducto_redis.middleware.recognisers.openai import *
from ducto_redis.middleware.recognisers.sockets import SessionReader, SocketRecogniser

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    *openai.DEFAULT_RECOGNISERS,
    *anthropic.DEFAULT_RECOGNISERS,
    *google.DEFAULT_RECOGNISERS,
    *bedrock.DEFAULT_RECOGNISERS,
    *cohere.DEFAULT_RECOGNISERS,
    *ollama.DEFAULT_RECOGNISERS,
)
"""The recognisers that the middleware has by default; of two that match a path, the first."""

DEFAULT_SOCKETS: tuple[SocketRecogniser, ...] = openai.DEFAULT_SOCKETS
"""The same for WebSockets."""

__all__ = [
    "DEFAULT_RECOGNISERS",
    "DEFAULT_SOCKETS",
    "Charge",
    "FreeRecogniser",
    "GenaiPrices",
    "MeteredRequest",
    "Recogniser",
    "ResponseReader",
    "SessionReader",
    "SocketRecogniser",
]
__all__ += openai.__all__
__all__ += anthropic.__all__
__all__ += google.__all__
__all__ += bedrock.__all__
__all__ += cohere.__all__
__all__ += ollama.__all__

__getattr__ = moved_names(__name__, {"AnswerReader": f"{__name__}:ResponseReader"})
