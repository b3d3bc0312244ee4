"""Images, sound and files in the input of a response."""

from typing import Any

from ducto_redis.middleware.recognisers.prompt import BASE64_BYTES_PER_SOUND_TOKEN, FindMedium, Medium

MARKS = tuple(
    b'"%b"' % kind
    for kind in (b"input_image", b"input_file", b"input_audio", b"computer_screenshot", b"image_generation_call")
)
"""The marks of media: an input with media contains one of these."""


def media_finder(image_tokens: int, file_tokens: int) -> FindMedium:
    """Return a function that finds media among the objects of an input.

    Args:
        image_tokens: the most tokens that one image takes.
        file_tokens: the most tokens of a file given by its id or address.
    """

    def find(value: dict[str, Any]) -> Medium | None:
        match value:
            case {"type": "input_image" | "computer_screenshot"}:
                return Medium(value, "image_url", image_tokens)
            case {"type": "image_generation_call"}:  # of an earlier response, sent back
                return Medium(value, "result", image_tokens)
            case {"type": "input_audio", "input_audio": {"data": str(data)} as holder}:
                return Medium(holder, "data", -(-len(data) // BASE64_BYTES_PER_SOUND_TOKEN))
            case {"type": "input_file", "file_data": str(data)}:
                return Medium(value, "file_data", len(data))
            case {"type": "input_file"}:
                return Medium(value, "file_data", file_tokens)
        return None

    return find
