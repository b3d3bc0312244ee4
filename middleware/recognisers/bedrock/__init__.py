"""The APIs of Amazon Bedrock."""

from ducto_redis.middleware.recognisers.base import Recogniser
from ducto_redis.middleware.recognisers.bedrock.converse import BedrockConverse, BedrockTokenCounting
from ducto_redis.middleware.recognisers.bedrock.invoke import BedrockInvoke

DEFAULT_RECOGNISERS: tuple[Recogniser, ...] = (
    BedrockConverse(),
    BedrockInvoke(),
    BedrockTokenCounting(),
)

__all__ = [
    "BedrockConverse",
    "BedrockInvoke",
    "BedrockTokenCounting",
]
