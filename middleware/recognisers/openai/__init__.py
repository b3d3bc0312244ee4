"""The APIs of OpenAI, and of the many that copy their shapes."""

from ducto_redis.middleware.recognisers.base import Recogniser
from ducto_redis.middleware.recognisers.openai.chat import OpenAIChat
from ducto_redis.middleware.recognisers.openai.completions import OpenAICompletions
from ducto_redis.middleware.recognisers.openai.embeddings import OpenAIEmbeddings
from ducto_redis.middleware.recognisers.openai.images import OpenAIImages
from ducto_redis.middleware.recognisers.openai.moderations import OpenAIModerations
from ducto_redis.middleware.recognisers.openai.realtime import OpenAIRealtime
from ducto_redis.middleware.recognisers.openai.responses import OpenAIResponses, OpenAIResponsesTokenCounting
from ducto_redis.middleware.recognisers.openai.speech import OpenAISpeech
from ducto_redis.middleware.recognisers.openai.transcriptions import OpenAITranscriptions
from ducto_redis.middleware.recognisers.openai.videos import OpenAIVideos
from ducto_redis.middleware.recognisers.sockets import SocketRecogniser

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
)

DEFAULT_SOCKETS: tuple[SocketRecogniser, ...] = (OpenAIRealtime(),)

__all__ = [
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
]
