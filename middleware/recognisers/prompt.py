"""What a prompt may cost, and what it is charged where no answer says so: text, and media inside it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates

# Sound takes at most 32 tokens a second, and no encoding less than 1,333 base64 characters for one.
BASE64_BYTES_PER_SOUND_TOKEN = 32
_LIKELY_PART = 4


class Medium(NamedTuple):
    """One image, file or recording in a request.

    Attributes:
        holder: the object that has its bytes or its address.
        field: the field of `holder` that has them.
        most_tokens: the most tokens that it may take.
    """

    holder: dict[str, Any]
    field: str
    most_tokens: int


FindMedium: TypeAlias = Callable[[dict[str, Any]], Medium | None]
"""Returns the medium that an object in a request is; None for any other object."""


class Prompt(NamedTuple):
    """A prompt's tokens.

    Attributes:
        most_tokens: the most that it may take.
        likely_tokens: what it is charged where the answer reports no usage.
    """

    most_tokens: int
    likely_tokens: int


def measure_prompt(
    estimates: Estimates,
    model: str | None,
    body: bytes,
    parts: Sequence[bytes],
    find_medium: FindMedium | None = None,
    marks: Sequence[bytes] = (),
) -> Prompt:
    """Return the tokens of a request's prompt.

    Args:
        estimates: how tokens are counted.
        model: whose tokens.
        body: the whole request. It bounds every field that an application may put into its prompt.
        parts: what of it is the prompt, as JSON. None of them: all of the body.
        find_medium: finds what in `parts` is no text.
        marks: what a part must contain, one of these, to be searched for media.

    Raises:
        BadRequestError: where media can't be counted.
    """
    texts: list[bytes] = []
    media_size = most = 0
    for part in parts:
        if find_medium is not None and any(mark in part for mark in marks):
            without, size, tokens = _without_media(part, find_medium)
            media_size += size
            most += tokens
            texts.append(without)
        elif part:
            texts.append(part)
    if most > MAX_COUNT:
        raise BadRequestError("the media in the request are too large")

    def text() -> str:
        return "\n".join(text.decode() for text in texts or [body])

    likely_size = sum(map(len, texts)) if texts else len(body)
    held = estimates.held_tokens(model, len(body) - media_size, text) + most
    likely = estimates.charged_tokens(model, likely_size, text) + -(-most // _LIKELY_PART)
    return Prompt(held, likely)


def check_settings(**settings: int) -> None:
    """Check settings that are numbers of tokens or calls. Raises ConfigError."""
    for name, value in settings.items():
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise ConfigError(f"{name} must be a whole number, 0 or more, not {value!r}")


def _without_media(part: bytes, find_medium: FindMedium) -> tuple[bytes, int, int]:
    try:
        decoded = msgspec.json.decode(part)
    except (msgspec.DecodeError, RecursionError):
        return part, 0, 0
    size = tokens = 0
    waiting = [decoded]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            medium = find_medium(value)
            if medium is None:
                waiting.extend(value.values())
                continue
            taken = medium.holder.get(medium.field)
            if isinstance(taken, str):
                size += len(taken.encode())
                medium.holder[medium.field] = ""
            tokens += medium.most_tokens
    return msgspec.json.encode(decoded), size, tokens
