"""Images, sound and files inside chat messages: their bytes say little about their tokens."""

from typing import Any, NamedTuple

from ducto_redis.middleware.recognisers.prompt import BASE64_BYTES_PER_SOUND_TOKEN, Medium

MARKS = (b'"image_url"', b'"input_audio"', b'"file"')
"""The marks of media: messages with media contain one of these."""


class ChatMedia(NamedTuple):
    """A finder of the media in chat messages.

    Anything that does not look as the API documents it stays text, which holds a token per byte.

    Attributes:
        image_tokens: the most tokens of one image.
        file_tokens: the most tokens of a file given by its id or address.
    """

    image_tokens: int
    file_tokens: int

    def find(self, part: dict[str, Any]) -> Medium | None:
        """Return the medium that an object in the messages is; None for any other object."""
        match part:
            case {"type": "image_url", "image_url": {"url": str()} as holder}:
                return Medium(holder, "url", self.image_tokens)
            case {"type": "input_audio", "input_audio": {"data": str(data)} as holder}:
                return Medium(holder, "data", -(-len(data) // BASE64_BYTES_PER_SOUND_TOKEN))
            case {"type": "file", "file": {"file_data": str(data)} as holder}:
                return Medium(holder, "file_data", len(data))
            case {"type": "file", "file": dict(holder)}:
                return Medium(holder, "file_data", self.file_tokens)
        return None
