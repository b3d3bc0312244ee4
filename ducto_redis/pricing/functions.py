"""The functions that formulas may call, and how many arguments each takes."""

from collections.abc import Callable

from msgspec import Struct


class Function(Struct, frozen=True):
    """A function's name, how it is written, and which numbers of arguments it takes."""

    name: str
    usage: str
    arity: str
    takes: Callable[[int], bool]


_ALL = (
    Function("min", "min(a, b, ...)", "at least 1 argument", lambda count: count >= 1),
    Function("max", "max(a, b, ...)", "at least 1 argument", lambda count: count >= 1),
    Function("ceil", "ceil(x)", "1 argument", lambda count: count == 1),
    Function("floor", "floor(x)", "1 argument", lambda count: count == 1),
    Function("round", "round(x) or round(x, places)", "1 or 2 arguments", lambda count: count in (1, 2)),
    Function("if", "if(condition, then, otherwise)", "3 arguments", lambda count: count == 3),
    Function(
        "tier",
        "tier(x, limit, value, ..., value above)",
        "an even number of arguments, at least 4",
        lambda count: count >= 4 and count % 2 == 0,
    ),
    Function("clamp", "clamp(x, low, high)", "3 arguments", lambda count: count == 3),
    Function("percentile", "percentile(p, a, b, ...)", "at least 2 arguments", lambda count: count >= 2),
)

FUNCTIONS = {function.name: function for function in _ALL}
"""Every function by name."""
