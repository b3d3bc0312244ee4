"""Texts that a request gives as strings or as tokens: the prompts of completions, the input of embeddings."""

from typing import NamedTuple

from msgspec import Raw

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.prompt import Prompt, measure_prompt
from ducto_redis.middleware.recognisers.usage_reader import decode


class TextInput(NamedTuple):
    """The texts of one request.

    Attributes:
        prompt: their tokens together.
        texts: how many they are.
    """

    prompt: Prompt
    texts: int


def measure_input(estimates: Estimates, model: str | None, body: bytes, given: Raw) -> TextInput:
    """Return the tokens of a string, of a list of strings, of a list of tokens, or of a list of lists of tokens.

    Args:
        estimates: how tokens are counted.
        model: whose tokens.
        body: the whole request, which bounds what it can mean.
        given: the field that has the texts.
    """
    value = decode(bytes(given))
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return TextInput(Prompt(len(value), len(value)), 1)
        if all(isinstance(item, list) and all(type(token) is int for token in item) for item in value):
            tokens = sum(map(len, value))
            return TextInput(Prompt(tokens, tokens), len(value))
    texts = len(value) if isinstance(value, list) else 1
    return TextInput(measure_prompt(estimates, model, body, [bytes(given)]), max(1, texts))
