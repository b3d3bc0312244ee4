"""Images, sound and files inside chat messages: their bytes say little about their tokens."""

from typing import Any, NamedTuple

import msgspec

# Sound takes at most 32 tokens a second, and no encoding less than 1,333 base64 characters for one.
_BASE64_BYTES_PER_SOUND_TOKEN = 32
_LIKELY_PART = 4


class Media(NamedTuple):
    """What messages carry beside text.

    Attributes:
        size: bytes of the messages that are not text.
        most_tokens: the most tokens that it may take.
        likely_tokens: the tokens that it is charged where the answer reports no usage.
        without_media: the messages as JSON, without those bytes.
    """

    size: int
    most_tokens: int
    likely_tokens: int
    without_media: bytes


def find_media(messages: bytes, image_tokens: int, file_tokens: int) -> Media:
    """Return the media in `messages` (JSON).

    Anything that does not look as the API documents it stays text, which holds a token per byte.
    """
    if b'"type"' not in messages or not (
        b'"image_url"' in messages or b'"input_audio"' in messages or b'"file"' in messages
    ):
        return Media(0, 0, 0, messages)
    size = tokens = 0
    try:
        decoded = msgspec.json.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        return Media(0, 0, 0, messages)
    for part in _parts(decoded):
        match part:
            case {"type": "image_url", "image_url": {"url": str(url)} as holder}:
                taken, part_tokens, field = url, image_tokens, "url"
            case {"type": "input_audio", "input_audio": {"data": str(data)} as holder}:
                taken, part_tokens, field = data, -(-len(data) // _BASE64_BYTES_PER_SOUND_TOKEN), "data"
            case {"type": "file", "file": {"file_data": str(data)} as holder}:
                taken, part_tokens, field = data, len(data), "file_data"
            case {"type": "file", "file": dict(holder)}:
                taken, part_tokens, field = "", file_tokens, "file_data"
            case _:
                continue
        size += len(taken.encode())
        tokens += part_tokens
        holder[field] = ""
    return Media(size, tokens, -(-tokens // _LIKELY_PART), msgspec.json.encode(decoded))


def _parts(messages: Any) -> list[Any]:
    if not isinstance(messages, list):
        return []
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    return [part for content in contents if isinstance(content, list) for part in content]
