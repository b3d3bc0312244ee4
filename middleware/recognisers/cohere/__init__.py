"""The APIs of Cohere."""

from ducto_redis.middleware.recognisers.base import Recogniser
from ducto_redis.middleware.recognisers.cohere.endpoints import CohereChat, CohereEmbed, CohereRerank

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    CohereChat(),
    CohereEmbed(),
    CohereRerank(),
)

__all__ = [
    "CohereChat",
    "CohereEmbed",
    "CohereRerank",
]
