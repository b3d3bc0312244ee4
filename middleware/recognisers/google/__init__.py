"""The APIs of Google: Gemini and Vertex AI."""

from ducto_redis.middleware.recognisers.base import Recogniser
from ducto_redis.middleware.recognisers.google.embeddings import GeminiEmbeddings, VertexPredict
from ducto_redis.middleware.recognisers.google.generate_content import Gemini, GeminiTokenCounting

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    Gemini(),
    GeminiTokenCounting(),
    GeminiEmbeddings(),
    VertexPredict(),
)

__all__ = [
    "Gemini",
    "GeminiEmbeddings",
    "GeminiTokenCounting",
    "VertexPredict",
]
