"""From lowered formulas to Python functions over a usage.

Two kinds: `compile_exact` makes the exact value of one formula, `compile_total` the rounded price of a whole request,
for the hot path. A function reads only the measures that its formulas use.
"""

import ast
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.money import MAX_MICRO, MICRO
from ducto_redis.pricing.exact import round_half_up
from ducto_redis.pricing.forms import CannotLowerError, Form, add, integer
from ducto_redis.pricing.lowering import Lowering, variable
from ducto_redis.pricing.measures import COUNTS, INPUT_PARTS, REQUESTS, TEXTS, TOOL_CALLS, UNCACHED
from ducto_redis.pricing.tree import Node
from ducto_redis.pricing.usage import MEASURE_UNITS, own_measure

Numerator: TypeAlias = Callable[[UsageMetrics, int], int]
"""Takes a checked usage and a number of tool calls."""

Total: TypeAlias = Callable[[UsageMetrics], int]
"""Takes a usage, returns micro-credits."""

_UNIT = Fraction(1, MEASURE_UNITS)


def compile_exact(tree: Node, reads: frozenset[str], own_measures: frozenset[str]) -> tuple[Numerator, int] | None:
    """Return a function whose result, over the integer returned beside it, is the formula's value in micro-credits.

    None where the formula cannot be lowered.
    """
    try:
        form = Lowering(own_measures, _UNIT).form(tree).scaled(Fraction(MICRO))
        denominator = form.denominator()
        result = integer(form, Fraction(1, denominator))
        lines = _read(reads, own_measures)
        function = _function(
            "numerator(usage, tool_calls)", [*lines, "return +RESULT"], {"RESULT": result}, own_measures
        )
    except (CannotLowerError, RecursionError):
        return None
    return function, denominator


def compile_total(
    trees: Sequence[Node],
    reads: frozenset[str],
    own_measures: frozenset[str],
    extras: Sequence[str],
    otherwise: Total,
) -> Total:
    """Return a function that sums formulas, rounds once, half up, and checks usage and result on the way.

    Args:
        trees: the formulas.
        reads: the measures that they read together.
        own_measures: those that the document declares.
        extras: fields of a usage that have prices of their own where they are not 0.
        otherwise: prices whatever the function does not: a usage with extras or outside of the limits, a total below
            0 or too large, and everything where a formula cannot be lowered.
    """
    own = sorted(reads & own_measures)
    counts = [
        name for name in COUNTS if name in reads or (UNCACHED in reads and name in ("input_tokens", *INPUT_PARTS))
    ]
    try:
        lowering = Lowering(own_measures, _UNIT)
        forms = [lowering.form(tree) for tree in trees]
        form = add(forms, [1] * len(forms)).scaled(Fraction(MICRO))
        denominator = form.denominator()
        limited_by_total = _limited_by_total(form, counts)
        if denominator > 1:
            # Below 0 this is not half up, but then the price is 0 all the same.
            form = add([form.scaled(Fraction(2 * denominator)), Form(Fraction(denominator))], [1, 1])
        result = integer(form, Fraction(1))
    except (CannotLowerError, RecursionError):
        return otherwise
    guards = ["usage.tool_calls", "usage.fixed_job is not None", *(f"usage.{field}" for field in extras)]
    guards.append("not usage.measures.keys() <= OWN" if own else "usage.measures")
    checks = _checks(counts, limited_by_total=limited_by_total)
    lines = [
        f"if {' or '.join(guards)}: return otherwise(usage)",
        *_read(reads, own_measures, counts, tool_calls="0"),
        *(f"if not ({check}): return otherwise(usage)" for check in checks),
        "total = RESULT" if denominator == 1 else f"total = RESULT // {2 * denominator}",
        f"if 0 <= total <= {MAX_MICRO}: return +total",
        "return otherwise(usage)",
    ]
    try:
        return _function("total(usage)", lines, {"RESULT": result}, own_measures, otherwise=otherwise)
    except RecursionError:
        return otherwise


def _limited_by_total(form: Form, counts: Sequence[str]) -> bool:
    """Return whether no count can pass its limit before the total, in micro-credits, passes the lower one it has."""
    return (
        form.constant >= 0
        and form.terms.keys() == set(counts)
        and all(factor >= 1 for _, factor in form.terms.values())
    )


def _checks(counts: Sequence[str], *, limited_by_total: bool) -> list[str]:
    if not counts:
        return []
    names = [variable(count) for count in counts]
    types = " is ".join(["INT", *(f"{name}.__class__" for name in names)])
    if limited_by_total:
        return [" and ".join([types, *(f"{name} >= 0" for name in names)])]
    return [" and ".join([types, *(f"0 <= {name} <= {MAX_COUNT}" for name in names)])]


def _read(
    reads: frozenset[str], own_measures: frozenset[str], counts: Sequence[str] = (), tool_calls: str = "tool_calls"
) -> list[str]:
    """Return the statements that load measures into local variables. Everything in them is spelled by us."""
    lines = [f"{variable(name)} = usage.{name}" for name in (counts or sorted(reads & set(COUNTS)))]
    lines += [f'{variable(name)} = usage.{name} or ""' for name in sorted(reads & TEXTS)]
    lines += [
        f"{variable(name)} = own_measure(usage.measures, {_constant(name)})" for name in sorted(reads & own_measures)
    ]
    if TOOL_CALLS in reads:
        lines.append(f"{variable(TOOL_CALLS)} = {tool_calls}")
    if UNCACHED in reads:
        parts = "".join(f" - usage.{part}" for part in INPUT_PARTS)
        lines.append(f"{variable(UNCACHED)} = usage.input_tokens{parts}")
        lines.append(f"if {variable(UNCACHED)} < 0: {variable(UNCACHED)} = 0")
    assert reads <= {*COUNTS, *TEXTS, *own_measures, TOOL_CALLS, UNCACHED, REQUESTS}
    return lines


def _constant(own_measure_name: str) -> str:
    return f"NAME_{own_measure_name.encode().hex()}"


def _function(
    signature: str,
    lines: Sequence[str],
    expressions: dict[str, ast.expr],
    own_measures: frozenset[str],
    **more: object,
) -> Callable[..., int]:
    source = "\n    ".join([f"def {signature}:", *lines])
    module = _Substitution(expressions).visit(ast.parse(source))
    namespace: dict[str, object] = {
        "__builtins__": {},
        "INT": int,
        "OWN": own_measures,
        "max": max,
        "min": min,
        "sorted": sorted,
        "own_measure": own_measure,
        "round_half_up": round_half_up,
        **{_constant(name): name for name in own_measures},
        **more,
    }
    exec(compile(module, "<pricing formula>", "exec"), namespace)
    function = namespace[signature.partition("(")[0]]
    assert callable(function)
    return function


class _Substitution(ast.NodeTransformer):
    """Puts expressions where their names stand."""

    def __init__(self, expressions: dict[str, ast.expr]) -> None:
        self._expressions = expressions

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._expressions.get(node.id, node)
