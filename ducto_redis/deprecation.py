"""Old names that keep working for one release, with a DeprecationWarning that names the new one.

New names are given as strings, `"ducto_redis.delivery:AutoTopUp"`, and imported only when the old name is used.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that `old` is called `new`.

    Args:
        old: as users write it.
        new: as they should write it.
        stacklevel: the line to name; 2 is the line that calls the function that calls this one.
    """
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=stacklevel + 1)


def moved_names(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that some names have left.

    Args:
        module: the module's `__name__`.
        moved: for each old name its new place, `"package.module:name"`.

    >>> __getattr__ = moved_names("ducto_redis.journal", {"AutoTopUp": "ducto_redis.delivery:AutoTopUp"})
    """

    def getattr_(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new_module, _, new_name = moved[name].partition(":")
        warn_renamed(f"{module}.{name}", f"{new_module}.{new_name}")
        return getattr(import_module(new_module), new_name)

    return getattr_


def moved_module(old: str, new: str) -> Callable[[str], Any]:
    """Warn that a module is imported by its old name, and return a `__getattr__` that reads the new module.

    Args:
        old: the old module's `__name__`.
        new: the full name of the new module.

    >>> __getattr__ = moved_module("ducto_redis.webhooks", "ducto_redis.events.signature")
    """
    warn_renamed(old, new, stacklevel=3)
    return lambda name: getattr(import_module(new), name)


def renamed_method(old: str, new: str) -> Callable[..., Any]:
    """Return a method that warns and calls the one named `new`, for the body of a class.

    It serves coroutine methods too: what the new method returns is returned.

    >>> class Box:
    ...     def put_value(self, value): ...
    ...
    ...     keep = renamed_method("keep", "put_value")
    """

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        kind = type(self).__name__
        warn_renamed(f"{kind}.{old}", f"{kind}.{new}")
        return getattr(self, new)(*args, **kwargs)

    method.__name__ = old
    method.__doc__ = f"Call `{new}`, the new name."
    return method


def renamed_attribute(old: str, new: str) -> Any:
    """Return a property that warns and reads the attribute named `new`, for the body of a class."""

    def read(self: Any) -> Any:
        kind = type(self).__name__
        warn_renamed(f"{kind}.{old}", f"{kind}.{new}")
        return getattr(self, new)

    return property(read, doc=f"The attribute `{new}`, by its old name.")


def renamed_arguments(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the function takes keyword arguments by their old names too.

    Args:
        new_names: for each old name the new one.

    Raises:
        TypeError: when the function is called with both names of an argument.

    >>> @renamed_arguments(if_version="if_equals")
    ... def put_value(key, value, *, if_equals=None): ...
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def rename(kwargs: dict[str, Any]) -> None:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {old!r} and {new!r}, two names of one argument")
                warn_renamed(f"{function.__qualname__}({old}=)", f"{new}=", stacklevel=3)
                kwargs[new] = kwargs.pop(old)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            rename(kwargs)
            return function(*args, **kwargs)

        @wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            rename(kwargs)
            return await function(*args, **kwargs)  # type: ignore[misc]

        return call_async if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]

    return decorate
