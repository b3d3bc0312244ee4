"""A formula as tokens: numbers, texts, names and operators, each with its place."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, NoReturn, TypeAlias

from msgspec import Struct

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.exact import LiteralError, decimal_literal

MAX_BYTES = 4096
"""The longest formula, in bytes of UTF-8."""

Kind: TypeAlias = Literal["number", "text", "name", "operator", "end"]


class Token(Struct, frozen=True):
    """One word of a formula. `value` is the number of a number and the content of a text."""

    kind: Kind
    text: str
    position: int
    value: Fraction | str | None = None


_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGITS = r"[0-9](?:_?[0-9])*"
_NUMBER = re.compile(rf"(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_OPERATOR = re.compile(r"//|==|!=|<=|>=|[-+*/%<>(),\[\]]")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_REFUSED = {
    "**": "powers (**) are not allowed",
    ":=": "assignments are not allowed",
    "=": "assignments are not allowed; to compare, write ==",
    ".": "attributes are not allowed",
    ":": "a colon is not allowed",
    "{": "braces are not allowed",
    "}": "braces are not allowed",
    "!": "'!' is not allowed; write `not`, or != to compare",
    "#": "comments are not allowed",
    "\\": "a backslash is not allowed",
}
_REFUSED_START = re.compile(r"\*\*|:=|[=.:{}!#\\]")


def tokenize(formula: str, path: str) -> Iterator[Token]:
    """Yield the tokens of `formula`, the last of kind "end".

    Raises:
        ExpressionError: for a formula that is too long, or a character or literal that no formula has.
    """

    def refuse(reason: str, position: int | None) -> NoReturn:
        raise ExpressionError(reason, path=path, position=position)

    if len(formula) > MAX_BYTES or len(formula.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        refuse(f"a formula has at most {MAX_BYTES} bytes", None)
    position = 0
    while True:
        space = _SPACE.match(formula, position)
        assert space is not None
        position = space.end()
        if position == len(formula):
            yield Token("end", "", position)
            return
        character = formula[position]
        if refused := _REFUSED_START.match(formula, position):
            number_like = character == "." and formula[position + 1 : position + 2].isdigit()
            equals = formula.startswith(("==", "!="), position)
            if not number_like and not equals:
                refuse(_REFUSED[refused.group()], position)
        if match := _NUMBER.match(formula, position):
            end = match.end()
            if end < len(formula) and (formula[end].isalnum() or formula[end] in "_."):
                refuse(f"{formula[position : end + 1]!r} does not begin a decimal number", position)
            yield Token("number", match.group(), position, _number(match.group(), path, position))
        elif match := _NAME.match(formula, position):
            end = match.end()
            yield Token("name", match.group(), position)
        elif character in "\"'":
            end = formula.find(character, position + 1) + 1
            if end == 0:
                refuse(f"the text has no closing {character}", position)
            content = formula[position + 1 : end - 1]
            if "\\" in content:
                refuse("a text has no backslashes", position + 1 + content.index("\\"))
            if bad := _NOT_TEXT.search(content):
                refuse("a text has no control characters", position + 1 + bad.start())
            yield Token("text", formula[position:end], position, content)
        elif match := _OPERATOR.match(formula, position):
            end = match.end()
            yield Token("operator", match.group(), position)
        else:
            refuse(f"{character!r} is not allowed in a formula", position)
        position = end


def _number(text: str, path: str, position: int) -> Fraction:
    plain = text.replace("_", "")
    if len(plain) > 1 and plain[0] == "0" and plain.isdigit() and plain.strip("0"):
        raise ExpressionError("a number has no leading zeros", path=path, position=position)
    try:
        return Fraction(decimal_literal(plain))
    except LiteralError as error:
        raise ExpressionError(str(error), path=path, position=position) from None
