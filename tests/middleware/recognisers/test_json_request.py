"""Bodies of requests: read, checked, and changed in one field."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.middleware import BadRequestError
from ducto_redis.middleware.recognisers.json_request import check_limit, check_name, decode_request, with_field


class Inner(msgspec.Struct):
    limit: int | None = None


class Asked(msgspec.Struct):
    model: str | None = None
    inner: Inner | None = None


decoder = msgspec.json.Decoder(Asked)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_request", None),
        (b"\xff{}", "invalid_json", None),
        (b'{"model": "\xff"}', "invalid_json", None),
        (b'{"model": 5}', "invalid_request", "model"),
        (b'{"inner": {"limit": "x"}}', "invalid_request", "inner.limit"),
        (b"[" * 100_000, "invalid_request", None),
    ],
)
def test_what_is_wrong_is_named(body: bytes, code: str, param: str | None) -> None:
    """A body that can't be read is refused, with the field that is wrong."""
    with pytest.raises(BadRequestError) as refused:
        decode_request(body, decoder)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_names_and_limits() -> None:
    """Names go into the ledger, and limits into prices: both have bounds."""
    check_name(None, "model")
    check_limit(None, "limit")
    check_limit(0, "limit", least=0)
    for name in ("", "x" * 129, "a\nb", "\ud800"):
        with pytest.raises(BadRequestError) as refused:
            check_name(name, "model")
        assert refused.value.param == "model"
    for limit in (0, -1, 2**53 + 1):
        with pytest.raises(BadRequestError, match="limit must be between 1 and"):
            check_limit(limit, "limit")


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b'{"a": 1}', ("b",), b'{"a":1,"b":7}'),
        (b'{"a": 1.50, "b": 2}', ("b",), b'{"a":1.50,"b":7}'),
        (b'{"a": null}', ("a", "b", "c"), b'{"a":{"b":{"c":7}}}'),
        (b'{"a": {"x": 12345678901234567890123, "b": 1}}', ("a", "b"), b'{"a":{"x":12345678901234567890123,"b":7}}'),
    ],
)
def test_one_field_changes(body: bytes, path: tuple[str, ...], expected: bytes) -> None:
    """All other fields stay as they were written, digit by digit."""
    assert with_field(body, path, 7) == expected


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.recursive(st.integers() | st.text(), st.lists, max_leaves=5), max_size=4)
)
def test_the_rest_is_left_alone(fields: dict[str, Any]) -> None:
    """Whatever a body holds, it holds afterwards."""
    changed = json.loads(with_field(json.dumps(fields).encode(), ("limit",), 7))
    assert changed == {**fields, "limit": 7}
