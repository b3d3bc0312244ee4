"""The API of Ollama."""

from ducto_redis.middleware.recognisers.base import Recogniser
from ducto_redis.middleware.recognisers.ollama.endpoints import Ollama, OllamaEmbed

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    Ollama(),
    OllamaEmbed(),
)

__all__ = [
    "Ollama",
    "OllamaEmbed",
]
