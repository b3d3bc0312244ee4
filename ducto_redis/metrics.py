"""Usage: what a request consumed.

The meaning of each number is OpenTelemetry's for generative AI: `input_tokens` and `output_tokens` are totals, the
cached, audio and image tokens are parts of them, `reasoning_tokens` is a part of the output.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from msgspec import Struct, field

MAX_COUNT = 2**53
"""The largest number a measure may have."""

Measure: TypeAlias = int | Decimal | float
"""A number of some measure. A float is taken by its shortest representation, to six places."""


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """Calls of one tool. `count` is how many."""

    name: str
    count: int = 1


class UsageMetrics(Struct, frozen=True, omit_defaults=True, gc=False):
    """Consumption of one request, or its estimate.

    Attributes:
        model: the name that the pricing document prices; any priced thing is a model.
        input_tokens: all tokens of the input, whatever part of them was cached, audio or image.
        output_tokens: all tokens of the output, reasoning included.
        cache_read_tokens: the part of the input that was read from a cache.
        cache_write_tokens: the part of the input that was written to a cache.
        audio_input_tokens, image_input_tokens: parts of the input.
        reasoning_tokens, audio_output_tokens, image_output_tokens: parts of the output.
        tool_calls: calls of tools, each priced by its name.
        search_queries, search_results: what a search consumed.
        web_search_calls, code_exec_calls: calls of the provider's own tools.
        fixed_job: the name of a job with a fixed price.
        operation: the kind of operation, for formulas that look at it.
        service_tier: the provider's tier, for formulas that look at it.
        measures: the document's own measures by name.
        cache_write_1h_tokens: the part of `cache_write_tokens` that is kept for an hour instead of five minutes.
        cache_read_audio_tokens: the part of the input that is audio and was read from a cache; both of those count it.
        tool_prompt_tokens: the part of the input that the results of the provider's own tools were.
        images: pictures made.
        audio_seconds, video_seconds: sound or film taken in or made, in whole seconds, rounded up.
        input_characters: characters read, where an API is priced by them.
        file_search_calls: calls of the provider's own search in files.

    >>> UsageMetrics(model="gpt-4o", input_tokens=1200, output_tokens=300).input_tokens
    1200
    """

    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    tool_calls: Sequence[ToolCall] = ()
    search_queries: int = 0
    search_results: int = 0
    web_search_calls: int = 0
    code_exec_calls: int = 0
    fixed_job: str | None = None
    operation: str | None = None
    service_tier: str | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    # Journals hold usage by position: new fields come last.
    cache_write_1h_tokens: int = 0
    cache_read_audio_tokens: int = 0
    tool_prompt_tokens: int = 0
    images: int = 0
    audio_seconds: int = 0
    video_seconds: int = 0
    input_characters: int = 0
    file_search_calls: int = 0
