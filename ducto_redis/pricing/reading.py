"""Reading one mapping of a document with the path of every mistake.

A `Section` gives out values by key and type, and refuses what is missing, of the wrong kind, or not asked for.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import NoReturn, TypeVar

from ducto_redis.errors import ConfigError, ExpressionError, InvalidAmountError, InvalidIdError
from ducto_redis.money import from_micro, to_micro
from ducto_redis.pricing.exact import LiteralError
from ducto_redis.pricing.loading import exact_number
from ducto_redis.pricing.usage import check_name
from ducto_redis.suggestions import did_you_mean
from ducto_redis.windows import check_time_zone

Value = TypeVar("Value")


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


class Mistakes:
    """The mistakes in a document. As a context it lets the first mistake pass, or collects it and goes on.

    Attributes:
        found: the mistakes that were collected.
    """

    def __init__(self, *, collect: bool = False) -> None:
        self.found: list[str] = []
        self._collect = collect

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not self._collect or not isinstance(error, ConfigError | ExpressionError):
            return False
        self.found.append(str(error))
        return True


class Section:
    """A mapping of the document and the keys that have been read from it.

    A value that is wrong is refused; where mistakes are collected, it reads as if it were not there.
    """

    def __init__(self, value: object, path: str, mistakes: Mistakes) -> None:
        self.path = path
        self.mistakes = mistakes
        self._values = mapping(value, path)
        self._known: list[str] = []

    def take(self, key: str) -> object:
        """Return the value at `key`; None where there is none."""
        self._known.append(key)
        return self._values.get(key)

    def has(self, key: str) -> bool:
        """Return whether the document gives `key` a value."""
        return self._values.get(key) is not None

    def keys(self, key: str) -> list[str]:
        """Return the keys of the mapping at `key`; none where there is no mapping."""
        value = self._values.get(key)
        return list(value) if isinstance(value, Mapping) else []

    def at(self, key: str) -> str:
        """Return the path of `key`."""
        return join(self.path, key)

    def text(self, key: str) -> str | None:
        """Return the text at `key`."""
        value = self.take(key)
        with self.mistakes:
            if value is not None and not isinstance(value, str):
                refuse(self.at(key), f"must be a text, not {kind_of(value)}")
            return value
        return None

    def name(self, key: str) -> str | None:
        """Return the text at `key`, which may name something."""
        value = self.text(key)
        with self.mistakes:
            if value is not None:
                try:
                    check_name(value, key)
                except InvalidIdError as error:
                    refuse(self.at(key), str(error))
            return value
        return None

    def one_of(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Return the text at `key`, which is one of `choices`."""
        value = self.text(key)
        with self.mistakes:
            if value is not None and value not in choices:
                hint = did_you_mean(value, choices)
                refuse(self.at(key), f"must be {' or '.join(map(repr, choices))}, not {value!r:.60}{hint}")
            return value
        return None

    def time_zone(self, key: str) -> str | None:
        """Return the name of a time zone at `key`."""
        value = self.text(key)
        with self.mistakes:
            try:
                return None if value is None else check_time_zone(value)
            except ConfigError as error:
                refuse(self.at(key), str(error))
        return None

    def boolean(self, key: str) -> bool | None:
        """Return true or false."""
        value = self.take(key)
        with self.mistakes:
            if value is not None and not isinstance(value, bool):
                refuse(self.at(key), f"must be true or false, not {kind_of(value)}")
            return value
        return None

    def count(self, key: str) -> int | None:
        """Return the whole number at `key`, 1 or more."""
        value = self.take(key)
        if value is None:
            return None
        with self.mistakes:
            exact = number(value, self.at(key))
            if exact != int(exact) or exact < 1:
                refuse(self.at(key), f"must be a whole number, 1 or more, not {exact}")
            return int(exact)
        return None

    def credits(self, key: str, *, negative: bool = False) -> Decimal | None:
        """Return the credits at `key`, zero or more; with `negative` zero or less."""
        value = self.take(key)
        with self.mistakes:
            return None if value is None else credits(value, self.at(key), negative=negative)
        return None

    def entries_of(self, key: str, read: Callable[[str, object, str], Value]) -> dict[str, Value]:
        """Return what `read` makes of each entry of the mapping at `key`, from its key, value and path."""
        value = self.take(key)
        path = self.at(key)
        read_values: dict[str, Value] = {}
        with self.mistakes:
            for name, each in mapping({} if value is None else value, path).items():
                with self.mistakes:
                    read_values[name] = read(name, each, join(path, name))
        return read_values

    def items_of(self, key: str, read: Callable[[object, str], Value]) -> list[Value]:
        """Return what `read` makes of each item of the list at `key`, from its value and its path."""
        value = self.take(key)
        path = self.at(key)
        read_values: list[Value] = []
        with self.mistakes:
            if value is None:
                return []
            if not isinstance(value, list | tuple):
                refuse(path, f"must be a list, not {kind_of(value)}")
            for index, each in enumerate(value):
                with self.mistakes:
                    read_values.append(read(each, f"{path}[{index}]"))
        return read_values

    def section(self, key: str) -> "Section | None":
        """Return the mapping at `key`."""
        value = self.take(key)
        with self.mistakes:
            return None if value is None else Section(value, self.at(key), self.mistakes)
        return None

    def end(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._values:
            with self.mistakes:
                if key not in self._known:
                    hint = did_you_mean(key, self._known) or f"; there are {', '.join(sorted(self._known))}"
                    refuse(self.at(key), f"unknown key{hint}")
