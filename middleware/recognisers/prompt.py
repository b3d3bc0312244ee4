"""The tokens of a prompt, text and media: the most that it may take, and the likely number."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import BYTES_PER_TOKEN, Estimates
from ducto_redis.middleware.recognisers.json_request import NOTHING

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


class Prompt(Struct, frozen=True, gc=False):
    """A prompt's tokens.

    Attributes:
        most_tokens: the most that it may take.
        likely_tokens: what it is charged where the response reports no usage.
    """

    most_tokens: int
    likely_tokens: int


def measure_prompt(
    estimates: Estimates,
    model: str | None,
    body: bytes,
    parts: Sequence[bytes | Raw],
    find_medium: FindMedium | None = None,
    marks: Sequence[bytes] = (),
) -> Prompt:
    """Return the tokens of a request's prompt.

    Args:
        estimates: how tokens are counted.
        model: whose tokens.
        body: the whole request. It bounds every field that an application may put into its prompt.
        parts: the prompt as JSON: fields of the body as they were sent, or bytes made of them. All of them empty: the
            prompt is the body.
        find_medium: finds what in `parts` is no text.
        marks: what a part must contain, one of these, to be searched for media.

    Raises:
        BadRequestError: where media cannot be counted.
    """
    texts: list[bytes | memoryview] = []
    media_size = most = likely_size = 0
    search = _search_for(tuple(marks)) if find_medium is not None and marks else None
    # A field of the body has no mark where the body has none: it is measured in place.
    in_place = search is None or search(body) is None
    for part in parts:
        if part is NOTHING:
            continue
        text = memoryview(part) if in_place and isinstance(part, Raw) else bytes(part)
        if find_medium is not None and search is not None and isinstance(text, bytes) and search(text) is not None:
            text, size, tokens = _without_media(text, find_medium)
            media_size += size
            most += tokens
        if text:
            texts.append(text)
            likely_size += len(text)
    if not likely_size:
        likely_size = len(body)
    if most > MAX_COUNT:
        raise BadRequestError("the media in the request are too large")
    if estimates.count_tokens is None:
        held, likely = len(body) - media_size, -(-likely_size // BYTES_PER_TOKEN)
    else:
        text_of = partial(_text_of, texts or [body])
        held = estimates.held_tokens(model, len(body) - media_size, text_of)
        likely = estimates.charged_tokens(model, likely_size, text_of)
    return Prompt(held + most, likely - (-most // _LIKELY_PART))


def check_settings(**settings: int) -> None:
    """Check settings that are numbers of tokens or calls. Raises ConfigError."""
    for name, value in settings.items():
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise ConfigError(f"{name} must be a whole number, 0 or more, not {value!r}")


@lru_cache(128)
def _search_for(marks: tuple[bytes, ...]) -> Callable[[bytes], re.Match[bytes] | None]:
    return re.compile(b"|".join(map(re.escape, marks))).search


def _text_of(texts: Sequence[bytes | memoryview]) -> str:
    return "\n".join(str(text, "utf-8") for text in texts)


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
