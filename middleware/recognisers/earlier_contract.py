"""Recognisers written for the contract of the last release, which work for one release more."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ducto_redis.deprecation import warn_renamed
from ducto_redis.middleware.api_request import ApiRequest, api_request

# From the warning up to the class statement: two functions of this module, `__init_subclass__` and the metaclass.
_CLASS_STATEMENT = 5


def adapt_recogniser(recogniser: type[Any], base: type[Any]) -> None:
    """Make a recogniser that has the earlier methods one that has the present ones, and warn about it.

    Args:
        recogniser: the class, as it is defined.
        base: the root of all recognisers.
    """
    method = vars(recogniser).get("read_request")
    if method is not None and _positional(method) == 4:
        _warn(recogniser, "read_request(body, scope, estimates)", "read_request(request, estimates)")
        recogniser.read_request = _given_request(method)
        # It may call the methods that it overrides, or those of another recogniser, as it is called itself.
        for other in _subclasses(base):
            present = vars(other).get("read_request")
            if present is not None and not hasattr(present, "takes_both"):
                other.read_request = _taking_both(present)
    if "read_answer" in vars(recogniser) and "read_response" not in vars(recogniser):
        _warn(recogniser, "read_answer", "read_response")
        recogniser.read_response = _calling_read_answer


def adapt_socket_recogniser(recogniser: type[Any], base: type[Any]) -> None:
    """Do the same for a recogniser of WebSockets whose `read_session` takes the scope."""
    method = vars(recogniser).get("read_session")
    if method is not None and "scope" in inspect.signature(method).parameters:
        _warn(recogniser, "read_session(scope, estimates)", "read_session(request, estimates)")
        recogniser.read_session = _given_scope(method)
        for other in _subclasses(base):
            present = vars(other).get("read_session")
            if present is not None and not hasattr(present, "takes_both"):
                other.read_session = _taking_scope(present)


def overridden_read_response(recogniser: object) -> Callable[..., Any]:
    """Return the nearest `read_response` of a recogniser that is not made of a `read_answer`."""
    for each in type(recogniser).__mro__:
        method = vars(each).get("read_response")
        if method is not None and method is not _calling_read_answer:
            return method  # type: ignore[no-any-return]
    raise NotImplementedError("read_response")


def _warn(recogniser: type[Any], earlier: str, present: str) -> None:
    name = recogniser.__qualname__
    warn_renamed(f"{name}.{earlier}", present, stacklevel=_CLASS_STATEMENT)


def _positional(method: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(method).parameters.values())


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)


def _given_request(earlier: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(earlier)
    def read_request(self: Any, *given: Any) -> Any:
        if len(given) == 3:
            return earlier(self, *given)
        request, estimates = given
        return earlier(self, request.body, request.scope, estimates)

    read_request.takes_both = True  # type: ignore[attr-defined]
    return read_request


def _taking_both(present: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(present)
    def read_request(self: Any, *given: Any) -> Any:
        if len(given) == 3:
            body, scope, estimates = given
            return present(self, api_request(scope, body), estimates)
        return present(self, *given)

    read_request.takes_both = True  # type: ignore[attr-defined]
    return read_request


def _given_scope(earlier: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(earlier)
    def read_session(self: Any, given: Any, estimates: Any) -> Any:
        return earlier(self, given.scope if isinstance(given, ApiRequest) else given, estimates)

    read_session.takes_both = True  # type: ignore[attr-defined]
    return read_session


def _taking_scope(present: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(present)
    def read_session(self: Any, given: Any, estimates: Any) -> Any:
        return present(self, given if isinstance(given, ApiRequest) else api_request(given), estimates)

    read_session.takes_both = True  # type: ignore[attr-defined]
    return read_session


def _calling_read_answer(recogniser: Any, request: Any, estimates: Any) -> Any:
    return recogniser.read_answer(request, estimates)
