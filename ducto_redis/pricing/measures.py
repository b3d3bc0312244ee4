"""The measures that formulas read, by name.

Each built-in number is a field of `UsageMetrics`, except the three that are derived from others.
"""

INPUT_PARTS = ("cache_read_tokens", "cache_write_tokens")
"""What `uncached_input_tokens` leaves out of `input_tokens`."""

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "cache_write_1h_tokens",
    "cache_read_audio_tokens",
    "tool_prompt_tokens",
)

SEARCHES = ("search_queries", "search_results", "web_search_calls")

WORK = ("code_exec_calls", "file_search_calls", "images", "audio_seconds", "video_seconds", "input_characters")
"""What is priced with the model, beside its tokens."""

COUNTS = (*TOKENS, *SEARCHES, *WORK)
"""The fields of `UsageMetrics` that are whole numbers."""

UNCACHED = "uncached_input_tokens"
"""`input_tokens` without what was read from or written to a cache, and never below 0."""

TOOL_CALLS = "tool_calls"
"""In a tool's formula the calls of that tool, elsewhere all calls."""

REQUESTS = "requests"
"""1: each usage is one request."""

NUMBERS = frozenset({*COUNTS, UNCACHED, TOOL_CALLS, REQUESTS})
TEXTS = frozenset({"model", "operation", "service_tier"})
"""A text that a usage does not give is the empty text."""
