"""From lowered formulas to Python functions over a usage.

`compile_exact` makes the exact value of one formula. `function_of` is the one place where code becomes a function; all
other parts of the code than the expressions, which lowering made node by node, are texts of this package. A function
reads only the measures that its formulas use.
"""

import ast
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import MICRO
from ducto_redis.pricing.exact import round_half_up
from ducto_redis.pricing.linear_forms import CannotLowerError, integer
from ducto_redis.pricing.lowering import Lowering, variable
from ducto_redis.pricing.measures import COUNTS, INPUT_PARTS, REQUESTS, TEXTS, TOOL_CALLS, UNCACHED
from ducto_redis.pricing.tree import Node
from ducto_redis.pricing.usage import MEASURE_UNITS, own_measure

Numerator: TypeAlias = Callable[[UsageMetrics, int], int]
"""Takes a checked usage and a number of tool calls."""

UNIT = Fraction(1, MEASURE_UNITS)


def compile_exact(tree: Node, reads: frozenset[str], own_measures: frozenset[str]) -> tuple[Numerator, int] | None:
    """Return a function whose result, over the integer returned beside it, is the formula's value in micro-credits.

    None where the formula cannot be lowered.
    """
    try:
        form = Lowering(own_measures, UNIT).form(tree).scaled(Fraction(MICRO))
        denominator = form.denominator()
        result = integer(form, Fraction(1, denominator))
        lines = read_measures(reads, own_measures)
        function = function_of(
            "numerator(usage, tool_calls)", [*lines, "return +RESULT"], {"RESULT": result}, own_measures
        )
    except (CannotLowerError, RecursionError):
        return None
    return function, denominator


def read_measures(
    reads: frozenset[str], own_measures: frozenset[str], counts: Sequence[str] = (), tool_calls: str = "tool_calls"
) -> list[str]:
    """Return the statements that load measures into local variables.

    Args:
        reads: the measures.
        own_measures: those that the document declares.
        counts: the fields to load instead of those among `reads`.
        tool_calls: the expression that counts calls of tools.
    """
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


def function_of(
    signature: str,
    lines: Sequence[str],
    expressions: dict[str, ast.expr],
    own_measures: frozenset[str],
    **more: object,
) -> Callable[..., Any]:
    """Return a function of these lines.

    Args:
        signature: its name and arguments.
        lines: its statements. Nothing in them comes from a document.
        expressions: what stands for each name in capitals that the statements hold in their place.
        own_measures: those that the document declares.
        more: values for names in the statements.
    """
    source = "\n    ".join([f"def {signature}:", *lines])
    module = _Substitution(expressions).visit(ast.parse(source))
    namespace: dict[str, object] = {
        "__builtins__": {},
        "INT": int,
        "TYPE": type,
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
