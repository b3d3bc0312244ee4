"""The usage that a response reports, in OpenTelemetry's meaning: totals, and parts inside them."""

from collections.abc import Mapping

from msgspec import structs

from ducto_redis.metrics import UsageMetrics

# No response has a billion tokens: such a number is a mistake, and charging it would empty an account.
MOST = 10**9
"""The largest count that is believed."""

_INPUT_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "tool_prompt_tokens",
)
_OUTPUT_PARTS = ("reasoning_tokens", "audio_output_tokens", "image_output_tokens")


class InvalidReportError(ValueError):
    """The error of an object that is not a usage report."""


def count(value: object) -> int | None:
    """Return a reported number of tokens or calls; None for anything else. 12.0 is 12, "12" is not a number."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST else None


def total(value: object) -> int:
    """Return a reported total. Raises InvalidReportError where it is missing, or is no count."""
    found = value if type(value) is int and 0 <= value <= MOST else count(value)
    if found is None:
        raise InvalidReportError("a total is missing, or is no count")
    return found


def take_parts(details: object, names: Mapping[str, str], parts: dict[str, int]) -> bool:
    """Read counts from an object of a report, and add them to what `parts` has.

    Args:
        details: the object; None for one that is missing.
        names: its fields, and what `UsageMetrics` calls each.
        parts: what was read.

    Returns:
        False where something of it is no count, and was left out.
    """
    if details is None:
        return True
    if not isinstance(details, dict):
        return False
    whole = True
    for theirs, ours in names.items():
        value = details.get(theirs)
        if value is None:
            continue
        # Most values are plain integers: they need no call.
        found = value if type(value) is int and 0 <= value <= MOST else count(value)
        if found is None:
            whole = False
        elif found:
            parts[ours] = parts.get(ours, 0) + found
    return whole


def usage_of(input_tokens: int, output_tokens: int, parts: dict[str, int]) -> tuple[UsageMetrics, bool]:
    """Return a usage of these totals, and whether all of `parts` could be used.

    A part that is larger than its total is left out: its tokens are then priced as plain ones, and never twice.

    >>> usage_of(10, 5, {"cache_read_tokens": 4, "reasoning_tokens": 9})
    (UsageMetrics(input_tokens=10, output_tokens=5, cache_read_tokens=4), False)
    """
    if not parts:
        return UsageMetrics(input_tokens=input_tokens, output_tokens=output_tokens), True
    named = len(parts)
    for most, names in ((input_tokens, _INPUT_PARTS), (output_tokens, _OUTPUT_PARTS)):
        for name in names:
            if parts.get(name, 0) > most:
                del parts[name]
    if parts.get("cache_read_tokens", 0) + parts.get("cache_write_tokens", 0) > input_tokens:
        del parts["cache_write_tokens"]
    if parts.get("cache_write_1h_tokens", 0) > parts.get("cache_write_tokens", 0):
        del parts["cache_write_1h_tokens"]
    if parts.get("cache_read_audio_tokens", 0) > min(
        parts.get("cache_read_tokens", 0), parts.get("audio_input_tokens", 0)
    ):
        del parts["cache_read_audio_tokens"]
    usage = structs.replace(UsageMetrics(input_tokens=input_tokens, output_tokens=output_tokens), **parts)
    return usage, len(parts) == named
