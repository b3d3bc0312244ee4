"""The grammar of formulas: from text to a tree.

Python's expressions, less than its whole: precedence, chained comparisons, `and`/`or`/`not`, `in`, the ternary and
calls by name are Python's. From loosest to tightest:

    then if condition else otherwise
    or
    and
    not
    ==  !=  <  <=  >  >=  in  not in
    +  -
    *  /  //  %
    unary + and -

Where a value is expected, `if(` is the function; after a value, `if` is the ternary. The parser is Pratt's: `_parse`
reads a value, then every operator that binds tighter than the one to its left.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NoReturn, cast

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.functions import FUNCTIONS
from ducto_redis.pricing.tokens import Token, tokenize
from ducto_redis.pricing.tree import (
    Call,
    Chain,
    Choice,
    Compare,
    Comparison,
    Listing,
    Logic,
    Name,
    Node,
    Number,
    ProductOperator,
    SumOperator,
    Text,
    Unary,
)

MAX_DEPTH = 50
"""How deep brackets, calls, signs, `not` and ternaries may nest. Long flat chains such as `a + b + c` do not nest."""

_LOOSEST, _TERNARY, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _UNARY = range(9)

_STRENGTH = {
    "if": _TERNARY,
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "not"), _COMPARISON),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "//", "%"), _PRODUCT),
}

_REFUSED_WORDS = {
    "lambda": "lambdas are not allowed",
    "for": "comprehensions are not allowed",
    "await": "await is not allowed",
    "yield": "yield is not allowed",
    "is": "`is` is not allowed; to compare, write ==",
    "None": "None is not allowed",
}

RESERVED = frozenset(
    {*FUNCTIONS, "if", "else", "and", "or", "not", "in", "is", "True", "False", "None", "lambda", "for"}
)
"""Words that cannot be the name of a measure."""


def parse(formula: str, path: str = "") -> Node:
    """Return the tree of `formula`. `path` says where it stands in the document, for errors.

    Raises:
        ExpressionError: where the text is not a formula; with the position.
    """
    parser = _Parser(tokenize(formula, path), path)
    node = parser.parse(_LOOSEST)
    parser.expect_end()
    return node


class _Parser:
    def __init__(self, tokens: Iterator[Token], path: str) -> None:
        self._tokens = tokens
        self._ahead: Token | None = None
        self._depth = 0
        self._path = path

    def parse(self, strength: int) -> Node:
        return self._continue(self._value(strength), strength)

    def _continue(self, node: Node, strength: int) -> Node:
        while True:
            token = self._peek()
            binds = _STRENGTH.get(token.text, _LOOSEST) if token.kind in ("name", "operator") else _LOOSEST
            if binds <= strength:
                return node
            match binds:
                case 1:  # _TERNARY
                    node = self._ternary(node)
                case 2 | 3:  # _OR, _AND
                    node = self._logic(node, binds)
                case 5:  # _COMPARISON
                    node = self._compare(node)
                case _:
                    node = self._chain(node, binds)

    def expect_end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            self._unexpected(token)

    # What follows a value

    def _ternary(self, then: Node) -> Node:
        token = self._take()
        before = self._enter(token)
        condition = self.parse(_TERNARY)
        self._expect("else", f"the ternary's `if` at character {token.position} needs an `else`")
        otherwise = self.parse(_LOOSEST)
        self._depth = before
        return Choice(condition, then, otherwise, token.position)

    def _logic(self, first: Node, strength: int) -> Node:
        word = self._peek()
        operands = [first]
        while self._at(word.text, "name"):
            self._take()
            operands.append(self.parse(strength))
        return Logic("and" if strength == _AND else "or", tuple(operands), word.position)

    def _compare(self, first: Node) -> Node:
        position = self._peek().position
        rest: list[tuple[Comparison, int, Node]] = []
        while self._peek().kind in ("name", "operator") and _STRENGTH.get(self._peek().text) == _COMPARISON:
            token = self._take()
            operator = token.text
            if operator == "not":
                self._expect("in", "after a value, `not` is followed by `in`")
                operator = "not in"
            operand = self._container() if operator in ("in", "not in") else self.parse(_COMPARISON)
            rest.append((cast("Comparison", operator), token.position, operand))
            after = self._peek()
            if isinstance(operand, Listing) and after.kind == "operator" and _STRENGTH.get(after.text, 0) > _COMPARISON:
                self._refuse("a list cannot be calculated with", after)
        return Compare(first, tuple(rest), position)

    def _chain(self, first: Node, strength: int) -> Node:
        position = self._peek().position
        rest: list[tuple[SumOperator | ProductOperator, int, Node]] = []
        while self._peek().kind == "operator" and _STRENGTH.get(self._peek().text) == strength:
            token = self._take()
            operand = self.parse(strength)
            rest.append((cast("SumOperator | ProductOperator", token.text), token.position, operand))
        return Chain(first, tuple(rest), position)

    # Values

    def _value(self, strength: int) -> Node:
        token = self._take()
        if isinstance(token.value, Fraction):
            return Number(token.value, token.position)
        if isinstance(token.value, str):
            return Text(token.value, token.position)
        if token.kind == "name":
            return self._word(token, strength)
        if token.text in ("+", "-"):
            before = self._enter(token)
            operand = self.parse(_UNARY)
            self._depth = before
            return Unary("-" if token.text == "-" else "+", operand, token.position)
        if token.text == "[":
            self._refuse("a list stands only right of `in`", token)
        if token.text != "(":
            self._unexpected(token, "a value is missing")
        return self._bracketed(token)

    def _word(self, token: Token, strength: int) -> Node:
        word = token.text
        if word == "not":
            if strength > _NOT:
                self._refuse("`not` needs brackets here", token)
            before = self._enter(token)
            operand = self.parse(_NOT)
            self._depth = before
            return Unary("not", operand, token.position)
        if word in ("True", "False"):
            return Number(Fraction(word == "True"), token.position)
        if word in _REFUSED_WORDS:
            self._refuse(_REFUSED_WORDS[word], token)
        if word not in ("else", "and", "or", "in") and self._at("("):
            return self._call(token)
        if word in FUNCTIONS and word != "if":
            self._refuse(f"{word} is a function: write {FUNCTIONS[word].usage}", token)
        if word in _STRENGTH or word == "else":
            self._unexpected(token, "a value is missing")
        return Name(word, token.position)

    def _call(self, name: Token) -> Node:
        opening = self._take()
        before = self._enter(opening)
        arguments = self._items(")", opening)
        self._depth = before
        return Call(name.text, arguments, name.position)

    def _bracketed(self, opening: Token) -> Node:
        before = self._enter(opening)
        if self._at(")"):
            self._refuse("empty brackets are not a value", opening)
        node = self.parse(_LOOSEST)
        if self._at(","):
            self._refuse("a list stands only right of `in`", opening)
        self._close(")", opening)
        self._depth = before
        return node

    def _container(self) -> Node:
        """Read the right side of `in`: a list in round or square brackets, or a value (a text measure)."""
        opening = self._peek()
        if self._at("["):
            self._take()
            before = self._enter(opening)
            if self._at("]"):
                self._refuse("an empty list holds nothing", opening)
            items = self._items("]", opening)
            self._depth = before
            return Listing(items, opening.position)
        if not self._at("("):
            return self.parse(_COMPARISON)
        self._take()
        before = self._enter(opening)
        if self._at(")"):
            self._refuse("an empty list holds nothing", opening)
        first = self.parse(_LOOSEST)
        if self._at(","):
            self._take()
            items = (first, *self._items(")", opening))
            self._depth = before
            return Listing(items, opening.position)
        self._close(")", opening)
        self._depth = before
        return self._continue(first, _COMPARISON)

    def _items(self, closing: str, opening: Token) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._at(closing):
            if self._at("*"):
                self._refuse("starred arguments are not allowed", self._peek())
            items.append(self.parse(_LOOSEST))
            if not self._at(","):
                break
            self._take()
        self._close(closing, opening)
        return tuple(items)

    # Tokens

    def _peek(self) -> Token:
        # Tokens are read as late as possible, so that of two mistakes the first is reported.
        if self._ahead is None:
            self._ahead = next(self._tokens)
        return self._ahead

    def _take(self) -> Token:
        token = self._peek()
        if token.kind != "end":
            self._ahead = None
        return token

    def _at(self, text: str, kind: str = "operator") -> bool:
        token = self._peek()
        return token.text == text and token.kind == kind

    def _enter(self, token: Token) -> int:
        before = self._depth
        if before == MAX_DEPTH:
            self._refuse(f"a formula nests at most {MAX_DEPTH} deep", token)
        self._depth += 1
        return before

    def _expect(self, word: str, reason: str) -> None:
        token = self._take()
        if token.kind != "name" or token.text != word:
            self._unexpected(token, reason)

    def _close(self, closing: str, opening: Token) -> None:
        token = self._take()
        if token.kind != "operator" or token.text != closing:
            self._unexpected(token, f"the {opening.text} at character {opening.position} is not closed here")

    def _unexpected(self, token: Token, reason: str = "the formula should end here") -> NoReturn:
        if token.kind == "name" and token.text in _REFUSED_WORDS:
            self._refuse(_REFUSED_WORDS[token.text], token)
        if token.kind == "operator" and token.text == "[":
            self._refuse("subscripts are not allowed", token)
        if token.kind == "operator" and token.text == "(":
            self._refuse("only functions are called, by their names", token)
        found = "the formula ends" if token.kind == "end" else f"found {token.text!r:.60}"
        self._refuse(f"{reason}: {found}", token)

    def _refuse(self, reason: str, token: Token) -> NoReturn:
        raise ExpressionError(reason, path=self._path, position=token.position)
