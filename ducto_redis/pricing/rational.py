"""A formula's value as an exact fraction, straight from its tree.

Slower than lowered code, but it can do everything, a division by a measure included, and it knows where in the
formula a calculation failed.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import NoReturn, TypeAlias

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.exact import round_fraction
from ducto_redis.pricing.tree import (
    Call,
    Chain,
    Choice,
    Compare,
    Listing,
    Logic,
    Name,
    Node,
    Number,
    Text,
    Unary,
)

Values: TypeAlias = Mapping[str, Fraction | str]
"""The value of every measure that a formula reads."""

_ONE, _ZERO = Fraction(1), Fraction(0)


def evaluate(node: Node, values: Values, path: str) -> Fraction:
    """Return the value of a checked formula.

    Raises:
        ExpressionError: for a division by zero, or a percentile outside of 0 to 100, with the position.
    """
    return _Evaluation(values, path).number(node)


class _Evaluation:
    def __init__(self, values: Values, path: str) -> None:
        self._values = values
        self._path = path

    def number(self, node: Node) -> Fraction:
        match node:
            case Number():
                return node.value
            case Name():
                value = self._values[node.name]
                assert isinstance(value, Fraction)
                return value
            case Unary("-", operand):
                return -self.number(operand)
            case Unary("+", operand):
                return self.number(operand)
            case Unary("not", operand):
                return _ZERO if self.number(operand) else _ONE
            case Chain():
                return self._chain(node)
            case Compare():
                return self._compare(node)
            case Logic("and", operands):
                for operand in operands:
                    result = self.number(operand)
                    if not result:
                        break
                return result
            case Logic("or", operands):
                for operand in operands:
                    result = self.number(operand)
                    if result:
                        break
                return result
            case Choice():
                return self.number(node.then if self.number(node.condition) else node.otherwise)
            case Call():
                return self._call(node)
            case _:
                raise AssertionError(f"not a number: {node!r:.100}")

    def _text(self, node: Node) -> str | None:
        match node:
            case Text():
                return node.value
            case Name():
                value = self._values[node.name]
                return value if isinstance(value, str) else None
            case _:
                return None

    def _value(self, node: Node) -> Fraction | str:
        text = self._text(node)
        return self.number(node) if text is None else text

    def _chain(self, node: Chain) -> Fraction:
        value = self.number(node.first)
        for operator, position, operand in node.rest:
            right = self.number(operand)
            if operator in ("/", "//", "%") and not right:
                self._refuse("division by zero", position)
            match operator:
                case "+":
                    value += right
                case "-":
                    value -= right
                case "*":
                    value *= right
                case "/":
                    value /= right
                case "//":
                    value = Fraction(value // right)
                case "%":
                    value %= right
        return value

    def _compare(self, node: Compare) -> Fraction:
        left = self._value(node.first)
        for operator, _, operand in node.rest:
            if operator in ("in", "not in"):
                if isinstance(operand, Listing):
                    found = left in [self._value(item) for item in operand.items]
                    right = left
                else:
                    right = self._value(operand)
                    assert isinstance(left, str)
                    assert isinstance(right, str)
                    found = left in right
                holds = found == (operator == "in")
            else:
                right = self._value(operand)
                holds = _compare(operator, left, right)
            if not holds:
                return _ZERO
            left = right
        return _ONE

    def _call(self, node: Call) -> Fraction:
        arguments = node.arguments
        match node.function:
            case "if":
                return self.number(arguments[1] if self.number(arguments[0]) else arguments[2])
            case "tier":
                measure = self.number(arguments[0])
                for limit, below in zip(arguments[1:-1:2], arguments[2:-1:2], strict=True):
                    if measure < self.number(limit):
                        return self.number(below)
                return self.number(arguments[-1])
        numbers = [self.number(argument) for argument in arguments]
        match node.function:
            case "min":
                return min(numbers)
            case "max":
                return max(numbers)
            case "ceil":
                return Fraction(ceil(numbers[0]))
            case "floor":
                return Fraction(floor(numbers[0]))
            case "round":
                unit = Fraction(10) ** int(numbers[1]) if len(numbers) == 2 else _ONE
                return round_fraction(numbers[0] * unit) / unit
            case "clamp":
                measured, low, high = numbers
                return max(low, min(measured, high))
            case "percentile":
                if not 0 <= numbers[0] <= 100:
                    self._refuse("percentile takes a p from 0 to 100", arguments[0].position)
                return percentile(numbers[0], numbers[1:])
            case _:
                raise AssertionError(f"no function {node.function!r}")

    def _refuse(self, reason: str, position: int) -> NoReturn:
        raise ExpressionError(reason, path=self._path, position=position)


def percentile(percent: Fraction, numbers: list[Fraction]) -> Fraction:
    """Return the value below which `percent` per cent of the numbers lie, interpolated between its two neighbours."""
    numbers = sorted(numbers)
    rank = percent / 100 * (len(numbers) - 1)
    below = floor(rank)
    if below == rank:
        return numbers[below]
    return numbers[below] + (numbers[below + 1] - numbers[below]) * (rank - below)


def _compare(operator: str, left: Fraction | str, right: Fraction | str) -> bool:
    if operator == "==":
        return left == right
    if operator == "!=":
        return left != right
    assert isinstance(left, Fraction)
    assert isinstance(right, Fraction)
    match operator:
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case _:
            return left >= right
