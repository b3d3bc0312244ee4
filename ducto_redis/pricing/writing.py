"""A pricing document as YAML, for people to read and edit. It reads back as an equal document, number by number."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.loading import load_json

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
# What some reader of YAML takes for a boolean, or for nothing.
_NO_TEXTS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_FIRST = ("version", "id", "name", "measures", "models", "tools", "search", "cache", "fixed")
_LAST = ("default_plan", "plans")


def to_yaml(document: PricingDocument) -> str:
    """Return the document as YAML 1.2: every text in quotes, every number as exact as it is, nothing at its default.

    >>> print(to_yaml(PricingDocument.from_dict({"models": {"gpt-4o": "input_tokens * 0.0025"}})), end="")
    version: 1
    models:
      gpt-4o: "input_tokens * 0.0025"
    """
    values: Any = load_json(document.to_json())
    return "\n".join(_block(values, "")) + "\n"


def written(value: object) -> str:
    """Return a value as the document writes it.

    >>> written(True), written(Decimal("2.50")), written(["a", 1])
    ('true', '2.50', '["a", 1]')
    """
    return _inline(value)


def key_and_text(key: str, text: str) -> str:
    """Return the line of a document in YAML that says a text under a key.

    >>> key_and_text("gpt-4o", "input_tokens")
    'gpt-4o: "input_tokens"'
    """
    return f"{_key(key)}: {_text(text)}"


def _block(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key in sorted(values, key=_place):
        value = values[key]
        start = f"{indent}{_key(key)}:"
        if isinstance(value, Mapping) and value:
            yield start
            yield from _block(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield start
            yield from (f"{indent}  - {_inline(item)}" for item in value)
        else:
            yield f"{start} {_inline(value)}"


def _place(key: str) -> tuple[int, int, str]:
    if key in _FIRST:
        return 0, _FIRST.index(key), key
    return (2, _LAST.index(key), key) if key in _LAST else (1, 0, key)


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_inline(value[key])}" for key in sorted(value, key=_place)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value) if isinstance(value, int) else f"{value:f}"


def _key(key: str) -> str:
    plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in _NO_TEXTS
    return key if plain else _text(key)


def _text(text: str) -> str:
    # JSON's escapes are YAML's too; its pairs of surrogates are not.
    return '"' + "".join(_character(each) for each in text) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
