"""A table that finds its values when they are first asked for."""

from collections.abc import Callable
from typing import TypeVar

MAX_REMEMBERED = 4096
"""How many names a table remembers. Names come from clients, who can make up any number of them."""

_Value = TypeVar("_Value")


class Remembered(dict[str | None, _Value]):
    """Results of `find` for the names that requests gave, bounded in number."""

    def __init__(self, find: Callable[[str | None], _Value]) -> None:
        self._find = find

    def __missing__(self, name: str | None) -> _Value:
        value = self._find(name)
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[name] = value
        return value
