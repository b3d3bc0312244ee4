"""The tree that a formula is read into. Every node knows its place in the formula, a character from 0."""

from fractions import Fraction
from typing import Literal, TypeAlias

from msgspec import Struct

SumOperator: TypeAlias = Literal["+", "-"]
ProductOperator: TypeAlias = Literal["*", "/", "//", "%"]
Comparison: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]


class Number(Struct, frozen=True):
    """A number as written."""

    value: Fraction
    position: int


class Text(Struct, frozen=True):
    """A text in quotes."""

    value: str
    position: int


class Name(Struct, frozen=True):
    """A measure."""

    name: str
    position: int


class Unary(Struct, frozen=True):
    """A sign, or `not`, before an operand."""

    operator: Literal["+", "-", "not"]
    operand: "Node"
    position: int


class Chain(Struct, frozen=True):
    """Operators of one precedence, applied from left to right. `rest` holds operator, its place, and operand."""

    first: "Node"
    rest: tuple[tuple[SumOperator | ProductOperator, int, "Node"], ...]
    position: int


class Compare(Struct, frozen=True):
    """A comparison, chained as in `0 < x <= 10`."""

    first: "Node"
    rest: tuple[tuple[Comparison, int, "Node"], ...]
    position: int


class Logic(Struct, frozen=True):
    """`and` or `or` between operands: the first that decides, or the last, is the value."""

    operator: Literal["and", "or"]
    operands: tuple["Node", ...]
    position: int


class Choice(Struct, frozen=True):
    """`then if condition else otherwise`."""

    condition: "Node"
    then: "Node"
    otherwise: "Node"
    position: int


class Call(Struct, frozen=True):
    """A call of a function."""

    function: str
    arguments: tuple["Node", ...]
    position: int


class Listing(Struct, frozen=True):
    """A list or tuple, which stands right of `in`."""

    items: tuple["Node", ...]
    position: int


Node: TypeAlias = Number | Text | Name | Unary | Chain | Compare | Logic | Choice | Call | Listing
