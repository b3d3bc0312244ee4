"""Images, sound and files in the input of a response."""

from typing import Any

from ducto_redis.middleware.recognisers.prompt import BASE64_BYTES_PER_SOUND_TOKEN, FindMedium, Medium

MARKS = tuple(
    b'"%b"' % kind
    for kind in (b"input_image", b"input_file", b"input_audio", b"computer_screenshot", b"image_generation_call")
)
"""What an input with media has in it."""


def media_finder(image_tokens: int, file_tokens: int) -> FindMedium:
    """Return what finds media among the objects of an input.

    Args:
        image_tokens: the most tokens that one image takes.
        file_tokens: the most tokens that a file takes which is given by its id or address.
    """

    def find(value: dict[str, Any]) -> Medium | None:
        match value:
            case {"type": "input_image" | "computer_screenshot"}:
                return Medium(value, "image_url", image_tokens)
            case {"type": "image_generation_call"}:  # an earlier answer's, given back
                return Medium(value, "result", image_tokens)
            case {"type": "input_audio", "input_audio": {"data": str(data)} as holder}:
                return Medium(holder, "data", -(-len(data) // BASE64_BYTES_PER_SOUND_TOKEN))
            case {"type": "input_file", "file_data": str(data)}:
                return Medium(value, "file_data", len(data))
            case {"type": "input_file"}:
                return Medium(value, "file_data", file_tokens)
        return None

    return find
