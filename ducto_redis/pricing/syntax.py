"""Nodes of Python's syntax tree, made without any text."""

import ast
from typing import TypeVar

_Node = TypeVar("_Node", bound=ast.expr)

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "in": ast.In,
    "not in": ast.NotIn,
}
_BINARY: dict[str, type[ast.operator]] = {"+": ast.Add, "*": ast.Mult, "//": ast.FloorDiv, "%": ast.Mod}

_MANY = 100


def load(name: str) -> ast.expr:
    """`name`"""
    return _placed(ast.Name(name, ast.Load()))


def assign(name: str, value: ast.expr) -> ast.expr:
    """`(name := value)`"""
    return _placed(ast.NamedExpr(_placed(ast.Name(name, ast.Store())), value))


def literal(value: int | str) -> ast.expr:
    """Return the syntax of a number or text."""
    return _placed(ast.Constant(value))


def tuple_of(items: list[ast.expr]) -> ast.expr:
    """`(item, ...)`"""
    return _placed(ast.Tuple(items, ast.Load()))


def item(value: ast.expr, index: int) -> ast.expr:
    """`value[index]`"""
    return _placed(ast.Subscript(value, literal(index), ast.Load()))


def binary(left: ast.expr, operator: str, right: ast.expr) -> ast.expr:
    """`left operator right`"""
    return _placed(ast.BinOp(left, _BINARY[operator](), right))


def negation(operand: ast.expr) -> ast.expr:
    """`not operand`"""
    return _placed(ast.UnaryOp(ast.Not(), operand))


def logic(operator: str, operands: list[ast.expr]) -> ast.expr:
    """`operand and ...` or `operand or ...`"""
    return _placed(ast.BoolOp(ast.And() if operator == "and" else ast.Or(), operands))


def comparison(first: ast.expr, operators: list[str], rest: list[ast.expr]) -> ast.expr:
    """`first operator rest ...`"""
    return _placed(ast.Compare(first, [_COMPARISONS[operator]() for operator in operators], rest))


def choice(condition: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
    """`then if condition else otherwise`"""
    return _placed(ast.IfExp(condition, then, otherwise))


def call(function: str, arguments: list[ast.expr]) -> ast.expr:
    """`function(argument, ...)`"""
    return _placed(ast.Call(load(function), arguments, []))


def total(summands: list[ast.expr]) -> ast.expr:
    """`summand + ...`"""
    # Many are halved, so that Python's compiler never recurses deeply.
    if len(summands) > _MANY:
        middle = len(summands) // 2
        return binary(total(summands[:middle]), "+", total(summands[middle:]))
    whole = summands[0]
    for summand in summands[1:]:
        whole = binary(whole, "+", summand)
    return whole


def _placed(node: _Node) -> _Node:
    # Python's compiler wants a place for every node.
    node.lineno = node.end_lineno = 1
    node.col_offset = node.end_col_offset = 0
    return node
