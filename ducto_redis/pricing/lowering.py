"""A formula's tree as exact integer arithmetic.

Every value is a linear form: a constant and some integer terms, each with a constant fraction as its factor. So
`input_tokens * (0.01 / 1000)` stays one term until the end, where one integer multiplication remains. Where integers
are needed (a comparison, a product of two measures, a rounding) a form becomes one integer expression over one constant
denominator.

What comes out is Python's own syntax tree, made node by node: no text of a document ever reaches Python's parser, and
no name of a document stands in it.
"""

import ast
from fractions import Fraction
from math import floor, gcd, lcm

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.checking import children, is_text
from ducto_redis.pricing.linear_forms import CannotLowerError, Form, add, integer
from ducto_redis.pricing.measures import NUMBERS, REQUESTS, TEXTS
from ducto_redis.pricing.rational import evaluate, percentile
from ducto_redis.pricing.syntax import (
    assign,
    binary,
    call,
    choice,
    comparison,
    item,
    literal,
    load,
    logic,
    negation,
    tuple_of,
)
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


class Lowering:
    """Turns checked trees into forms. One lowering makes the code of one function, so that its names are distinct."""

    def __init__(self, own_measures: frozenset[str], unit: Fraction) -> None:
        """`unit` is what one step of an own measure's integer stands for."""
        self._own_measures = own_measures
        self._unit = unit
        self._made = 0

    def form(self, node: Node) -> Form:
        """Return the value of a checked tree.

        Raises:
            CannotLowerError: where it has no constant denominator.
        """
        if isinstance(node, Compare | Logic | Choice | Call) and _is_constant(node):
            try:
                return Form(evaluate(node, {}, ""))
            except ExpressionError:
                raise CannotLowerError from None
        match node:
            case Number():
                return Form(node.value)
            case Name(name) if name == REQUESTS:
                return Form(Fraction(1))
            case Name(name):
                factor = self._unit if name in self._own_measures else Fraction(1)
                return Form(Fraction(0), {name: (load(variable(name)), factor)})
            case Unary("+", operand):
                return self.form(operand)
            case Unary("-", operand):
                return self.form(operand).scaled(Fraction(-1))
            case Unary("not", operand):
                (code,), _ = self._integers([self.form(operand)])
                return self._term(negation(code))
            case Chain():
                return self._chain(node)
            case Compare():
                return self._term(self._compare(node))
            case Logic(operator, operands):
                codes, unit = self._integers([self.form(operand) for operand in operands])
                return self._term(logic(operator, codes), unit)
            case Choice(condition, then, otherwise):
                return self._choice(condition, then, otherwise)
            case Call():
                return self._call(node)
            case _:
                raise AssertionError(f"not a number: {node!r:.100}")

    # Operators

    def _chain(self, node: Chain) -> Form:
        if node.rest[0][0] in ("+", "-"):
            signs = [1, *(1 if operator == "+" else -1 for operator, _, _ in node.rest)]
            return add([self.form(node.first), *(self.form(operand) for _, _, operand in node.rest)], signs)
        value = self.form(node.first)
        for operator, _, operand in node.rest:
            right = self.form(operand)
            match operator:
                case "*":
                    value = self._product(value, right)
                case "/":
                    value = value.scaled(_reciprocal(right))
                case "//":
                    value = self._floor_division(value, right)
                case "%":
                    value = self._remainder(value, right)
        return value

    def _product(self, left: Form, right: Form) -> Form:
        if not right.terms:
            return left.scaled(right.constant)
        if not left.terms:
            return right.scaled(left.constant)
        (left_code,), left_unit = self._integers([left])
        (right_code,), right_unit = self._integers([right])
        return self._term(binary(left_code, "*", right_code), left_unit * right_unit)

    def _floor_division(self, left: Form, right: Form) -> Form:
        if not right.terms:
            return self._floor(left.scaled(_reciprocal(right)))
        (dividend, divisor), _ = self._integers([left, right])
        return self._term(binary(dividend, "//", divisor))

    def _remainder(self, left: Form, right: Form) -> Form:
        if not right.terms:
            _reciprocal(right)
            if not left.terms:
                return Form(left.constant % right.constant)
        (dividend, divisor), unit = self._integers([left, right])
        return self._term(binary(dividend, "%", divisor), unit)

    def _compare(self, node: Compare) -> ast.expr:
        operands = [node.first, *(operand for _, _, operand in node.rest)]
        numbers = [
            each
            for operand in operands
            for each in (operand.items if isinstance(operand, Listing) else (operand,))
            if not is_text(each)
        ]
        codes, _ = self._integers([self.form(number) for number in numbers])
        ahead = iter(codes)

        def code(operand: Node) -> ast.expr:
            match operand:
                case Listing(items):
                    return tuple_of([code(each) for each in items])
                case Text(value):
                    return literal(value)
                case Name(name) if is_text(operand):
                    return load(variable(name))
                case _:
                    return next(ahead)

        first, *rest = [code(operand) for operand in operands]
        return comparison(first, [operator for operator, _, _ in node.rest], rest)

    def _choice(self, condition: Node, then: Node, otherwise: Node) -> Form:
        (test,), _ = self._integers([self.form(condition)])
        (yes, no), unit = self._integers([self.form(then), self.form(otherwise)])
        return self._term(choice(test, yes, no), unit)

    # Functions

    def _call(self, node: Call) -> Form:
        arguments = node.arguments
        match node.function:
            case "if":
                return self._choice(*arguments)
            case "tier":
                return self._tier(arguments)
        forms = [self.form(argument) for argument in arguments]
        match node.function:
            case "min" | "max":
                return self._extreme(node.function, forms)
            case "clamp":
                value, low, high = forms
                return self._extreme("max", [low, self._extreme("min", [value, high])])
            case "floor":
                return self._floor(forms[0])
            case "ceil":
                return self._floor(forms[0].scaled(Fraction(-1))).scaled(Fraction(-1))
            case "round":
                places = forms[1].constant if len(forms) == 2 else Fraction(0)
                return self._round(forms[0], Fraction(10) ** int(places))
            case "percentile":
                return self._percentile(forms[0], forms[1:])
            case _:
                raise AssertionError(f"no function {node.function!r}")

    def _extreme(self, function: str, forms: list[Form]) -> Form:
        if len(forms) == 1:
            return forms[0]
        codes, unit = self._integers(forms)
        return self._term(call(function, codes), unit)

    def _floor(self, form: Form) -> Form:
        if not form.terms:
            return Form(Fraction(floor(form.constant)))
        denominator = form.denominator()
        if denominator == 1:
            return form
        code = integer(form, Fraction(1, denominator))
        return self._term(binary(code, "//", literal(denominator)))

    def _round(self, form: Form, unit: Fraction) -> Form:
        form = form.scaled(unit)
        denominator = form.denominator()
        if denominator > 1:
            code = integer(form, Fraction(1, denominator))
            form = self._term(call("round_half_up", [code, literal(denominator)]))
        return form.scaled(1 / unit)

    def _tier(self, arguments: tuple[Node, ...]) -> Form:
        measured = [self.form(argument) for argument in (arguments[0], *arguments[1:-1:2])]
        (measure, *limits), _ = self._integers(measured)
        values, unit = self._integers([self.form(argument) for argument in (*arguments[2:-1:2], arguments[-1])])
        name = self._temporary()
        code = values[-1]
        for place in reversed(range(len(limits))):
            left = load(name) if place else assign(name, measure)
            test = comparison(left, ["<"], [limits[place]])
            code = choice(test, values[place], code)
        return self._term(code, unit)

    def _percentile(self, percent: Form, forms: list[Form]) -> Form:
        if percent.terms or not 0 <= percent.constant <= 100:
            raise CannotLowerError
        if not any(form.terms for form in forms):
            return Form(percentile(percent.constant, [form.constant for form in forms]))
        if len(forms) == 1:
            return forms[0]
        codes, unit = self._integers(forms)
        rank = percent.constant / 100 * (len(forms) - 1)
        below = floor(rank)
        ordered = call("sorted", [tuple_of(codes)])
        if rank == below:
            return self._term(item(ordered, below), unit)
        share = rank - below
        name = self._temporary()
        lower = binary(item(assign(name, ordered), below), "*", literal(share.denominator - share.numerator))
        upper = binary(item(load(name), below + 1), "*", literal(share.numerator))
        return self._term(binary(lower, "+", upper), unit / share.denominator)

    # Pieces

    def _integers(self, forms: list[Form]) -> tuple[list[ast.expr], Fraction]:
        """Return the forms as integers that count one common unit, and the unit."""
        factors = [
            factor for form in forms for factor in (form.constant, *(factor for _, factor in form.terms.values()))
        ]
        unit = Fraction(
            gcd(*(factor.numerator for factor in factors)) or 1, lcm(*(factor.denominator for factor in factors))
        )
        return [integer(form, unit) for form in forms], unit

    def _term(self, code: ast.expr, factor: Fraction = Fraction(1)) -> Form:
        self._made += 1
        return Form(Fraction(0), {self._made: (code, factor)})

    def _temporary(self) -> str:
        self._made += 1
        return f"temporary_{self._made}"


def variable(measure: str) -> str:
    """Return the local variable that holds a measure. The name of an own measure is spelled in hexadecimal."""
    return f"measure_{measure}" if measure in NUMBERS or measure in TEXTS else f"own_{measure.encode().hex()}"


def _is_constant(node: Node) -> bool:
    return not isinstance(node, Name) and all(map(_is_constant, children(node)))


def _reciprocal(form: Form) -> Fraction:
    if form.terms or not form.constant:
        raise CannotLowerError
    return 1 / form.constant
