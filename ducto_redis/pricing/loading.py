"""From JSON or YAML text to plain dicts, lists, texts and exact numbers.

No number passes through a float, and what two readers could understand differently (a key given twice, an alias, a
tag) is refused. YAML's plain scalars are read by the rules of YAML 1.2: `yes` and `on` are texts.
"""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

from ducto_redis.errors import ConfigError
from ducto_redis.pricing.exact import decimal_literal

_MAX_NESTING = 100

_YAML_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_YAML_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_YAML_INTEGER = re.compile(r"[-+]?[0-9]+")
_YAML_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_YAML_OTHER_NUMBER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def load_json(text: str | bytes) -> object:
    """Return what JSON text holds; numbers are int or Decimal.

    Raises:
        ConfigError: for text that is not JSON, a key given twice, NaN, an infinity, or a number of more than 30 digits.
    """
    try:
        if isinstance(text, bytes | bytearray):
            text = bytes(text).decode("utf-8-sig")
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=decimal_literal,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise ConfigError(f"the pricing document is not UTF-8 (at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the pricing document is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ConfigError("the pricing document nests too deep") from None


def load_yaml(text: str | bytes) -> object:
    """Return what YAML text holds; numbers are int or Decimal, keys are texts.

    Raises:
        ConfigError: for text that is not YAML, a key given twice, aliases, tags, several documents; or where the YAML
            reader is not installed.
    """
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise ConfigError("reading YAML needs a package more: pip install 'ducto-redis[yaml]'") from None
    try:
        if isinstance(text, bytes | bytearray):
            text = bytes(text).decode("utf-8-sig")
        return _YamlReader(YAML(typ="safe", pure=True).parse(text)).document()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the pricing document is not UTF-8 (at byte {error.start})") from None
    except YAMLError as error:
        raise ConfigError(f"the pricing document is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError("the pricing document nests too deep") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"the pricing document has the key {key!r:.200} twice in one object")
        found[key] = value
    return found


def _integer(text: str) -> int:
    return int(decimal_literal(text))


def _no_constant(text: str) -> NoReturn:
    raise ConfigError(f"the pricing document holds {text}; every number is finite")


class _YamlReader:
    """Builds values from the events of ruamel.yaml's parser, whose scalars are still text."""

    def __init__(self, events: Any) -> None:
        self._events = iter(events)

    def document(self) -> object:
        self._next("StreamStartEvent")
        kind, _ = self._next()
        if kind == "StreamEndEvent":
            return None
        value = self._value(*self._next(), path="", depth=0)
        self._next("DocumentEndEvent")
        kind, event = self._next()
        if kind != "StreamEndEvent":
            self._refuse("a second document", "", event)
        return value

    def _value(self, kind: str, event: Any, path: str, depth: int) -> object:
        if depth > _MAX_NESTING:
            raise ConfigError(f"the pricing document nests more than {_MAX_NESTING} deep at {path}")
        if kind == "AliasEvent" or event.anchor is not None:
            self._refuse("an anchor or alias", path, event)
        explicit_tag = event.tag is not None and str(event.tag) not in ("", "!")
        if explicit_tag:
            self._refuse("a tag", path, event)
        if kind == "ScalarEvent":
            return _scalar(event, path)
        if kind == "SequenceStartEvent":
            items: list[object] = []
            while (following := self._next())[0] != "SequenceEndEvent":
                items.append(self._value(*following, path=f"{path}[{len(items)}]", depth=depth + 1))
            return items
        mapping: dict[str, object] = {}
        while (following := self._next())[0] != "MappingEndEvent":
            key = self._key(*following, path=path)
            inner = f"{path}.{key}" if path else key
            if key in mapping:
                self._refuse("the same key twice", inner, following[1])
            mapping[key] = self._value(*self._next(), path=inner, depth=depth + 1)
        return mapping

    def _key(self, kind: str, event: Any, path: str) -> str:
        if kind == "AliasEvent" or event.anchor is not None:
            self._refuse("an anchor or alias", path, event)
        if kind != "ScalarEvent":
            self._refuse("a key that is not a text", path, event)
        if event.value == "<<" and event.implicit[0]:
            self._refuse("a merge key", path, event)
        return str(event.value)

    def _next(self, expected: str | None = None) -> tuple[str, Any]:
        event = next(self._events)
        kind = type(event).__name__
        assert expected in (None, kind), kind
        return kind, event

    def _refuse(self, what: str, path: str, event: Any) -> NoReturn:
        place = f" at {path}" if path else ""
        raise ConfigError(f"the pricing document has {what}{place} (line {event.start_mark.line + 1})")


def _scalar(event: Any, path: str) -> object:
    text = str(event.value)
    plain = event.implicit[0]
    if not plain:
        return text
    if text in _YAML_NULL:
        return None
    if text in _YAML_BOOLEAN:
        return _YAML_BOOLEAN[text]
    try:
        if _YAML_INTEGER.fullmatch(text):
            return int(decimal_literal(text))
        if _YAML_NUMBER.fullmatch(text):
            return decimal_literal(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if _YAML_OTHER_NUMBER.fullmatch(text):
        raise ConfigError(f"{path}: numbers are finite and decimal, not {text}; a text needs quotes")
    return text


def exact_number(value: object) -> int | Decimal | None:
    """Return a number as int or Decimal, a float by its shortest representation; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(decimal_literal(str(value) if -(10**40) < value < 10**40 else "9" * 41))
    if isinstance(value, float):
        return decimal_literal(repr(value))
    if isinstance(value, Decimal):
        return decimal_literal(str(value) if len(value.as_tuple().digits) <= 41 else "9" * 41)
    return None
