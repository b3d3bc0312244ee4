"""Requests for streams in OpenAI's older shape, in which usage must be asked for."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from ducto_redis.middleware.recognisers.base import MeteredRequest
from ducto_redis.middleware.recognisers.json_request import with_field
from ducto_redis.middleware.recognisers.usage_reader import decode

_ASKING = b'"stream_options":{"include_usage":true}'


class StreamRequest(MeteredRequest, frozen=True):
    """A request whose stream reports its usage only where that is asked for.

    Attributes:
        adds_usage: whether the application is asked for it, and the client did not ask.
        has_stream_options: whether the request has that field, be it null.
    """

    adds_usage: bool = False
    has_stream_options: bool = False


def asks_for_usage(stream_options: object) -> bool:
    """Tell whether the client wants to see the usage, or sends something that must not be touched."""
    if stream_options is None or stream_options is UNSET:
        return False
    return not isinstance(stream_options, dict) or stream_options.get("include_usage") is True


def with_usage_asked(body: bytes, request: MeteredRequest) -> bytes:
    """Return the body with the option that asks for usage, where the request is to have it.

    >>> from ducto_redis.metrics import UsageMetrics
    >>> with_usage_asked(b'{"stream": true}', StreamRequest(UsageMetrics(), adds_usage=True))
    b'{"stream_options":{"include_usage":true},"stream": true}'
    """
    if not isinstance(request, StreamRequest) or not request.adds_usage:
        return body
    if request.has_stream_options:
        return with_field(body, ("stream_options", "include_usage"), value=True)
    start = body.index(b"{") + 1  # a request that streams has at least that field: a comma is right
    return b"%b%b,%b" % (body[:start], _ASKING, body[start:])


def with_lower_limit(body: bytes, names: Sequence[str], limit: int, otherwise: str) -> bytes:
    """Return the body with no limit above `limit`; all else is left as it was written.

    Args:
        body: a JSON object.
        names: the fields that set a limit.
        limit: tokens, at least 1.
        otherwise: the field that is added where none of `names` is there.

    >>> with_lower_limit(b'{"max_tokens": 50, "top_p": 1.0}', ("max_tokens",), 20, "max_tokens")
    b'{"max_tokens":20,"top_p":1.0}'
    """
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    asked = {name: decode(bytes(fields[name])) for name in names if bytes(fields.get(name, b"null")) != b"null"}
    for name, most in (asked or {otherwise: limit + 1}).items():
        if isinstance(most, int) and most > limit:
            fields[name] = Raw(b"%d" % limit)
    return msgspec.json.encode(fields)
