"""Reading one mapping of a document with the path of every mistake.

A `Section` gives out values by key and type, and refuses what is missing, of the wrong kind, or not asked for.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from ducto_redis.errors import ConfigError, InvalidAmountError, InvalidIdError
from ducto_redis.money import from_micro, to_micro
from ducto_redis.pricing.exact import LiteralError
from ducto_redis.pricing.loading import exact_number
from ducto_redis.pricing.suggestions import did_you_mean
from ducto_redis.pricing.usage import check_name


def join(path: str, key: str) -> str:
    """Return the path of `key` in `path`; a key that a reader could mistake for two stands in quotes."""
    written = key if re.fullmatch(r"[A-Za-z0-9_.*@:/-]+", key) else repr(key)[:140]
    return f"{path}.{written}" if path else written


def refuse(path: str, reason: str) -> NoReturn:
    """Refuse the document for what stands at `path`."""
    raise ConfigError(f"{path}: {reason}" if path else f"the pricing document {reason}")


def kind_of(value: object) -> str:
    """Return what a value is, in the words of JSON."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return "a number" if isinstance(value, int | float | Decimal) else f"a {type(value).__name__}"


def number(value: object, path: str) -> int | Decimal:
    """Return a number exactly."""
    try:
        exact = exact_number(value)
    except LiteralError as error:
        refuse(path, str(error))
    if exact is None:
        refuse(path, f"must be a number, not {kind_of(value)}")
    return exact


def credits(value: object, path: str, *, negative: bool = False) -> Decimal:
    """Return an amount of credits with six places: zero or more, or with `negative` zero or less."""
    amount = number(value, path)
    if negative and amount > 0:
        refuse(path, f"must be zero or below, not {amount}")
    try:
        return from_micro(-to_micro(-amount, zero=True)) if negative else from_micro(to_micro(amount, zero=True))
    except InvalidAmountError as error:
        refuse(path, str(error))


def mapping(value: object, path: str) -> Mapping[str, object]:
    """Return a mapping whose keys are names."""
    if not isinstance(value, Mapping):
        refuse(path, f"must be an object, not {kind_of(value)}")
    for key in value:
        if not isinstance(key, str):
            refuse(path, f"has the key {key!r:.60}; keys must be texts")
        try:
            check_name(key, "key")
        except InvalidIdError as error:
            refuse(path, str(error))
    return value


class Section:
    """A mapping of the document and the keys that have been read from it."""

    def __init__(self, value: object, path: str) -> None:
        self.path = path
        self._values = mapping(value, path)
        self._known: list[str] = []

    def take(self, key: str) -> object:
        """Return the value at `key`; None where there is none."""
        self._known.append(key)
        return self._values.get(key)

    def has(self, key: str) -> bool:
        """Return whether the document gives `key` a value."""
        return self._values.get(key) is not None

    def at(self, key: str) -> str:
        """Return the path of `key`."""
        return join(self.path, key)

    def text(self, key: str) -> str | None:
        """Return the text at `key`."""
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            refuse(self.at(key), f"must be a text, not {kind_of(value)}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Return the text at `key`, which is one of `choices`."""
        value = self.text(key)
        if value is not None and value not in choices:
            hint = did_you_mean(value, choices)
            refuse(self.at(key), f"must be {' or '.join(map(repr, choices))}, not {value!r:.60}{hint}")
        return value

    def boolean(self, key: str) -> bool | None:
        """Return true or false."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            refuse(self.at(key), f"must be true or false, not {kind_of(value)}")
        return value

    def count(self, key: str) -> int | None:
        """Return the whole number at `key`, 1 or more."""
        value = self.take(key)
        if value is None:
            return None
        exact = number(value, self.at(key))
        if exact != int(exact) or exact < 1:
            refuse(self.at(key), f"must be a whole number, 1 or more, not {exact}")
        return int(exact)

    def credits(self, key: str, *, negative: bool = False) -> Decimal | None:
        """Return the credits at `key`, zero or more; with `negative` zero or less."""
        value = self.take(key)
        return None if value is None else credits(value, self.at(key), negative=negative)

    def entries(self, key: str) -> list[tuple[str, str, object]]:
        """Return key, path and value of each entry of the mapping at `key`."""
        value = self.take(key)
        if value is None:
            return []
        path = self.at(key)
        return [(name, join(path, name), each) for name, each in mapping(value, path).items()]

    def items(self, key: str) -> list[tuple[str, object]]:
        """Return path and value of each item of the list at `key`."""
        value = self.take(key)
        if value is None:
            return []
        path = self.at(key)
        if not isinstance(value, list | tuple):
            refuse(path, f"must be a list, not {kind_of(value)}")
        return [(f"{path}[{index}]", each) for index, each in enumerate(value)]

    def section(self, key: str) -> "Section | None":
        """Return the mapping at `key`."""
        value = self.take(key)
        return None if value is None else Section(value, self.at(key))

    def end(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                hint = did_you_mean(key, self._known) or f"; there are {', '.join(sorted(self._known))}"
                refuse(self.at(key), f"unknown key{hint}")
