"""One recogniser an API: what its requests may cost, and what its answers say they used."""

from ducto_redis.deprecation import moved_names
from ducto_redis.middleware.recognisers.anthropic.messages import AnthropicMessages, AnthropicTokenCounting
from ducto_redis.middleware.recognisers.base import (
    Charge,
    MeteredRequest,
    Recogniser,
    ResponseReader,
)
from ducto_redis.middleware.recognisers.bedrock.converse import BedrockConverse, BedrockTokenCounting
from ducto_redis.middleware.recognisers.bedrock.invoke import BedrockInvoke
from ducto_redis.middleware.recognisers.cohere.endpoints import CohereChat, CohereEmbed, CohereRerank
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.recognisers.genai_prices import GenaiPrices
from ducto_redis.middleware.recognisers.google.embeddings import GeminiEmbeddings, VertexPredict
from ducto_redis.middleware.recognisers.google.generate_content import Gemini, GeminiTokenCounting
from ducto_redis.middleware.recognisers.ollama.endpoints import Ollama, OllamaEmbed
from ducto_redis.middleware.recognisers.openai.chat import OpenAIChat
from ducto_redis.middleware.recognisers.openai.completions import OpenAICompletions
from ducto_redis.middleware.recognisers.openai.embeddings import OpenAIEmbeddings
from ducto_redis.middleware.recognisers.openai.images import OpenAIImages
from ducto_redis.middleware.recognisers.openai.moderations import OpenAIModerations
from ducto_redis.middleware.recognisers.openai.realtime import OpenAIRealtime
from ducto_redis.middleware.recognisers.openai.responses import (
    OpenAIResponses,
    OpenAIResponsesTokenCounting,
)
from ducto_redis.middleware.recognisers.openai.speech import OpenAISpeech
from ducto_redis.middleware.recognisers.openai.transcriptions import OpenAITranscriptions
from ducto_redis.middleware.recognisers.openai.videos import OpenAIVideos
from ducto_redis.middleware.recognisers.sockets import SessionReader, SocketRecogniser

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    OpenAIChat(),
    OpenAIResponses(),
    OpenAIResponsesTokenCounting(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    OpenAIImages(),
    OpenAITranscriptions(),
    OpenAISpeech(),
    OpenAIModerations(),
    AnthropicMessages(),
    AnthropicTokenCounting(),
    Gemini(),
    GeminiTokenCounting(),
    GeminiEmbeddings(),
    VertexPredict(),
    BedrockConverse(),
    BedrockInvoke(),
    BedrockTokenCounting(),
    CohereChat(),
    CohereEmbed(),
    CohereRerank(),
    Ollama(),
    OllamaEmbed(),
)
"""What the middleware recognises without being told; of two that match a path, the first."""

DEFAULT_SOCKETS: tuple[SocketRecogniser, ...] = (OpenAIRealtime(),)
"""The same for WebSockets."""

__all__ = [
    "DEFAULT_RECOGNISERS",
    "DEFAULT_SOCKETS",
    "AnthropicMessages",
    "AnthropicTokenCounting",
    "BedrockConverse",
    "BedrockInvoke",
    "BedrockTokenCounting",
    "Charge",
    "CohereChat",
    "CohereEmbed",
    "CohereRerank",
    "FreeRecogniser",
    "Gemini",
    "GeminiEmbeddings",
    "GeminiTokenCounting",
    "GenaiPrices",
    "MeteredRequest",
    "Ollama",
    "OllamaEmbed",
    "OpenAIChat",
    "OpenAICompletions",
    "OpenAIEmbeddings",
    "OpenAIImages",
    "OpenAIModerations",
    "OpenAIRealtime",
    "OpenAIResponses",
    "OpenAIResponsesTokenCounting",
    "OpenAISpeech",
    "OpenAITranscriptions",
    "OpenAIVideos",
    "Recogniser",
    "ResponseReader",
    "SessionReader",
    "SocketRecogniser",
    "VertexPredict",
]

__getattr__ = moved_names(__name__, {"AnswerReader": f"{__name__}:ResponseReader"})
