"""Causes: what is written is what is read, in few bytes."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.engine.cause import USAGE_FIELDS, Cause, decode_cause, encode_cause
from ducto_redis.metrics import ToolCall, UsageMetrics

COUNT = st.integers(0, 2**53)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.none() | TEXT
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": NAME,
    "fixed_job": NAME,
    "operation": NAME,
    "service_tier": NAME,
    "tool_calls": st.lists(st.builds(ToolCall, TEXT, COUNT), max_size=2).map(lambda calls: calls or ()),
    "measures": st.dictionaries(
        TEXT, COUNT | st.decimals("-1e9", "1e9", places=6).map(lambda it: int(it) if it == int(it) else it), max_size=2
    ),
}
USAGE = st.fixed_dictionaries({}, optional={name: VALUES.get(name, COUNT) for name in USAGE_FIELDS}).map(
    lambda fields: UsageMetrics(**fields)
)
TAILS = st.sampled_from(["", ",0", ",0,0]", ",[]", ",null,{}]", "]", '"', "\\"])


@given(usages=st.lists(USAGE, max_size=3))
def test_usage_survives(usages: list[UsageMetrics]) -> None:
    """Usage is read as it was written, whichever of its fields say something."""
    assert list(decode_cause(encode_cause(Cause(usages)).decode()).usages) == usages


@given(tail=TAILS, tokens=st.sampled_from([0, 10, 100]))
def test_a_name_that_looks_like_the_end(tail: str, tokens: int) -> None:
    """A name that ends as usage ends is not cut."""
    usage = UsageMetrics(model="m" + tail, input_tokens=tokens, fixed_job=tail or None)
    assert decode_cause(encode_cause(Cause((usage,))).decode()).usages == (usage,)


def test_cause_survives() -> None:
    """All of a cause is read as it was written."""
    metadata = {"a": ["ü\t", 1]}
    usage = UsageMetrics(model="m", tool_calls=[ToolCall("search", 2)])
    cause = Cause((usage,), "bonus", "chat", ["x"], metadata, "ann", "a mistake")
    encoded = encode_cause(cause)
    assert b"\t" not in encoded
    assert decode_cause(encoded.decode()) == cause


def test_empty_cause_is_empty() -> None:
    """A cause that says nothing takes no room, and reads as one that says nothing."""
    assert encode_cause(Cause()) == b""
    assert decode_cause("") == Cause()


def test_measures_keep_their_digits() -> None:
    """A decimal measure is written digit for digit, and read so."""
    usage = UsageMetrics(measures={"x": Decimal("0.100000000000000001")})
    encoded = encode_cause(Cause((usage,)))
    assert b"0.100000000000000001" in encoded
    assert decode_cause(encoded.decode()).usages == (usage,)


def test_usage_is_written_by_position() -> None:
    """Journals and ledgers keep these positions: a new field comes after them."""
    assert encode_cause(Cause((UsageMetrics(model="gpt-4o", input_tokens=1200, cache_read_tokens=256),))) == (
        b'{"usage":[["gpt-4o",1200,0,256]]}'
    )
    assert encode_cause(Cause((UsageMetrics(),))) == b'{"usage":[[null]]}'
    assert USAGE_FIELDS[:27] == (
        "model",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "audio_input_tokens",
        "audio_output_tokens",
        "image_input_tokens",
        "image_output_tokens",
        "tool_calls",
        "search_queries",
        "search_results",
        "web_search_calls",
        "code_exec_calls",
        "fixed_job",
        "operation",
        "service_tier",
        "measures",
        "cache_write_1h_tokens",
        "cache_read_audio_tokens",
        "tool_prompt_tokens",
        "images",
        "audio_seconds",
        "video_seconds",
        "input_characters",
        "file_search_calls",
    )


def test_usage_of_a_newer_release() -> None:
    """A usage with more positions than are known reads as far as they are."""
    values = [getattr(UsageMetrics(model="m", input_tokens=1), name) for name in USAGE_FIELDS]
    text = json.dumps({"usage": [[*values, 7]]})
    assert decode_cause(text).usages == (UsageMetrics(model="m", input_tokens=1),)


@pytest.mark.parametrize("text", ["{", "[]", '{"usage":{"model":"m"}}', '{"usage":[[1]]}', '{"usage":["m"]}'])
def test_wrong_causes(text: str) -> None:
    """What is no cause is not taken for one."""
    with pytest.raises(ValueError, match=r"JSON|Expected|truncated"):
        decode_cause(text)
