"""The API of Anthropic, on its own and on Vertex AI."""

from ducto_redis.middleware.recognisers.anthropic.messages import AnthropicMessages, AnthropicTokenCounting
from ducto_redis.middleware.recognisers.base import Recogniser

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    AnthropicMessages(),
    AnthropicTokenCounting(),
)

__all__ = [
    "AnthropicMessages",
    "AnthropicTokenCounting",
]
