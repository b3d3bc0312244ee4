"""Checks of a formula beyond its grammar: known names, numbers of arguments, numbers where numbers belong."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NoReturn

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.exact import MAX_EXPONENT
from ducto_redis.pricing.functions import FUNCTIONS
from ducto_redis.pricing.measures import NUMBERS, TEXTS
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
from ducto_redis.suggestions import did_you_mean

_MEMBERSHIP = ("in", "not in")
_EQUALITY = ("==", "!=")


def check(node: Node, own_measures: frozenset[str], path: str) -> frozenset[str]:
    """Check the tree of a formula and return the names of the measures that it reads.

    Raises:
        ExpressionError: for the first thing that is wrong, with its position.
    """
    checker = _Checker(own_measures, path)
    checker.number(node)
    return frozenset(checker.reads)


def constant(node: Node) -> Fraction | None:
    """Return the value of a number as written, with or without a sign; None for anything else."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Unary) and node.operator != "not":
        value = constant(node.operand)
        return -value if value is not None and node.operator == "-" else value
    return None


def is_text(node: Node) -> bool:
    """Return whether `node` is a text: a literal, or a measure that is one."""
    return isinstance(node, Text) or (isinstance(node, Name) and node.name in TEXTS)


class _Checker:
    def __init__(self, own_measures: frozenset[str], path: str) -> None:
        self._own_measures = own_measures
        self._path = path
        self.reads: set[str] = set()

    def number(self, node: Node) -> None:
        """Check a node that stands where a number belongs."""
        if is_text(node):
            what = f"{node.name}, a text," if isinstance(node, Name) else "a text"
            self._refuse(f"{what} stands where a number belongs; texts are only compared, with ==, != and in", node)
        match node:
            case Name():
                self._name(node)
            case Compare():
                self._compare(node)
            case Call():
                self._call(node)
            case _:
                for child in children(node):
                    self.number(child)

    def _name(self, node: Name) -> None:
        name = node.name
        known = NUMBERS | TEXTS | self._own_measures
        if name not in known:
            hint = did_you_mean(name, known)
            if name.lower() in ("nan", "inf", "infinity"):
                hint = "; every number is finite"
            self._refuse(f"unknown measure {name!r:.60}{hint}", node)
        self.reads.add(name)

    def _compare(self, node: Compare) -> None:
        # Each operand is checked once, though it may stand in two comparisons: nesting would double the work.
        for operand in children(node):
            for each in operand.items if isinstance(operand, Listing) else (operand,):
                if not is_text(each):
                    self.number(each)
                elif isinstance(each, Name):
                    self.reads.add(each.name)
        left = node.first
        for operator, position, right in node.rest:
            if isinstance(left, Listing):
                reason = "a list is only compared with what stands left of it"
                raise ExpressionError(reason, path=self._path, position=position)
            if operator not in _MEMBERSHIP:
                self._pair(left, right, texts=operator in _EQUALITY)
            elif isinstance(right, Listing):
                for item in right.items:
                    self._pair(left, item, texts=True)
            elif isinstance(right, Name) and is_text(right):
                self._pair(left, right, texts=True)
            else:
                self._refuse('right of `in` stands a list, as in ("a", "b") or ("a",), or a measure of text', right)
            left = right

    def _pair(self, left: Node, right: Node, *, texts: bool) -> None:
        """Check that two sides are both numbers, or both texts where texts may be compared."""
        both = is_text(left) and is_text(right)
        for node in (left, right):
            if is_text(node) and not (both and texts):
                self.number(node)

    def _call(self, node: Call) -> None:
        function = FUNCTIONS.get(node.function)
        if function is None:
            hint = did_you_mean(node.function, FUNCTIONS)
            self._refuse(f"unknown function {node.function!r:.60}{hint}", node)
        count = len(node.arguments)
        if not function.takes(count):
            self._refuse(f"{function.usage} takes {function.arity}, not {count}", node)
        for argument in node.arguments:
            self.number(argument)
        if node.function == "percentile":
            percent = constant(node.arguments[0])
            if percent is not None and not 0 <= percent <= 100:
                self._refuse("percentile takes a p from 0 to 100", node.arguments[0])
        if node.function == "round" and count == 2:
            places = constant(node.arguments[1])
            if places is None or places.denominator != 1 or abs(places) > MAX_EXPONENT:
                self._refuse(
                    f"round takes a whole number of places from -{MAX_EXPONENT} to {MAX_EXPONENT}", node.arguments[1]
                )

    def _refuse(self, reason: str, node: Node) -> NoReturn:
        raise ExpressionError(reason, path=self._path, position=node.position)


def children(node: Node) -> Iterator[Node]:
    """Yield what a node is made of, from left to right."""
    match node:
        case Unary():
            yield node.operand
        case Chain() | Compare():
            yield node.first
            for _, _, operand in node.rest:
                yield operand
        case Logic():
            yield from node.operands
        case Choice():
            yield node.then
            yield node.condition
            yield node.otherwise
        case Call():
            yield from node.arguments
        case Listing():
            yield from node.items
