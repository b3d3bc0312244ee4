"""One recogniser an API: what its requests may cost, and what its answers say they used."""

from ducto_redis.middleware.recognisers.base import (
    AnswerReader,
    Charge,
    MeteredRequest,
    Recogniser,
)
from ducto_redis.middleware.recognisers.openai_chat import OpenAIChat

__all__ = ["AnswerReader", "Charge", "MeteredRequest", "OpenAIChat", "Recogniser"]
