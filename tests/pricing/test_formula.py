"""Formulas have the values that Python's own rules give them, exactly."""

import ast
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.errors import ExpressionError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.rational import evaluate
from ducto_redis.pricing.usage import value_of
from tests.searching import examples

USAGE = UsageMetrics(
    model="gpt-4o",
    input_tokens=1200,
    output_tokens=300,
    cache_read_tokens=200,
    cache_write_tokens=50,
    search_queries=2,
    operation="chat",
    measures={"pages": 2.5},
)
OWN = frozenset({"pages"})


def value(text: str, usage: UsageMetrics = USAGE, tool_calls: int = 3) -> Fraction:
    """The value in credits, after checking that integers and fractions agree on it."""
    formula = Formula(text, "models.m", OWN)
    numerator, denominator = formula.exact(usage, tool_calls)
    values = {name: value_of(name, usage, tool_calls) for name in formula.reads}
    assert Fraction(numerator, denominator) == evaluate(formula.tree, values, "models.m") * 10**6
    return Fraction(numerator, denominator) / 10**6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # exact decimals
        ("0.1 * 1 + 0.2 * 1", "0.3"),
        ("0.0004", "0.0004"),
        ("1e-3", "0.001"),
        (".5", "0.5"),
        ("5.", "5"),
        ("5.e1", "50"),
        ("1_000.5", "1000.5"),
        ("00", "0"),
        ("1e18 / 1e18", "1"),
        ("1 / 3 * 3", "1"),
        ("input_tokens * (0.01 / 1000) + output_tokens * (0.03 / 1000)", "0.021"),
        # precedence
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("10 - 4 - 3", "3"),
        ("100 / 10 / 2", "5"),
        ("2 * 7 // 4", "3"),
        ("-2 // 3", "-1"),
        ("-(2 // 3)", "0"),
        ("2 - -3", "5"),
        ("--2", "2"),
        ("+-+2", "-2"),
        ("-2 % 3", "1"),
        ("2 % -3", "-1"),
        ("-7 // 2", "-4"),
        ("7 // -2", "-4"),
        ("-7 % 2.5", "0.5"),
        ("7.5 // 2", "3"),
        ("7.5 % 2", "1.5"),
        ("input_tokens // 500 + input_tokens % 500 / 1000", "2.2"),
        ("input_tokens % output_tokens + input_tokens // (output_tokens + 1)", "3"),
        # comparisons
        ("1 < 2 < 3", "1"),
        ("3 > 2 > 2", "0"),
        ("1 < 3 > 2", "1"),
        ("(1 < 2) + (2 < 3)", "2"),
        ("1 == 1.0", "1"),
        ("(1 < 2) == 1", "1"),
        ("True + True", "2"),
        ("False or 0.5", "0.5"),
        ("-(1 < 2)", "-1"),
        ("input_tokens >= 1200 != output_tokens", "1"),
        ("1 < 2 == 2 < 3", "1"),
        # and, or, not
        ("2 and 3", "3"),
        ("0 and 3", "0"),
        ("0 or 3", "3"),
        ("2 or 3", "2"),
        ("1 and 0 or 5", "5"),
        ("0 or 0.0 or 7", "7"),
        ("1 or 1 and 0", "1"),
        ("not 5", "0"),
        ("not 0", "1"),
        ("not 0 == 1", "1"),
        ("not not 5", "1"),
        ("not 1 or 2", "2"),
        ("input_tokens * 0 or output_tokens * 0.1", "30"),
        ("(input_tokens and output_tokens) * 0.5", "150"),
        # the ternary and the function
        ("1 if 0 else 2 if 0 else 3", "3"),
        ("(1 if 1 else 2) if 0 else 3", "3"),
        ("1 if 1 else 2 if 1 else 3", "1"),
        ("input_tokens if (output_tokens > 2) else 7", "1200"),
        ("1 if output_tokens > if(1, 5, 6) else 9", "1"),
        ("if(0, 1, 2) if 1 else 3", "2"),
        ("if (1, 2, 3)", "2"),
        ("if(if(1, 0, 1), 2, if(1, 4, 5))", "4"),
        ("5 if(0)else 6", "6"),
        ("5 if if(1, 0, 1) else 6", "6"),
        ("1 + 5 if 0 else 6 + 1", "7"),
        ("0 or 1 if 1 and 0 else 0 or 2", "2"),
        # in
        ("2 in (1, 2)", "1"),
        ("2 in [1, 3]", "0"),
        ("2 not in (1, 3)", "1"),
        ("not 2 in (1, 2)", "0"),
        ("2 in (2,)", "1"),
        ("2 in (4 / 2, 1,)", "1"),
        ("1 < 2 in (2, 3)", "1"),
        ("1 + 1 in (2, 3) or 9", "1"),
        ("output_tokens in (100, input_tokens / 4)", "1"),
        ('model in ("gpt-4o", "gpt-4")', "1"),
        ("model in ['gpt-4']", "0"),
        ('"gpt" in model', "1"),
        ('"gpt" in (model)', "1"),
        ('"gpt" not in model', "0"),
        ('model == "gpt-4o"', "1"),
        ('"gpt-4o" != model', "0"),
        ('model == "gpt-4o" != operation', "1"),
        ('service_tier == ""', "1"),
        ('0.5 if operation == "chat" and model != "x" else 1', "0.5"),
        # functions
        ("min(3, 1, 2)", "1"),
        ("max(3)", "3"),
        ("max(1, 2,)", "2"),
        ("min(input_tokens / 7, 0.25)", "0.25"),
        ("ceil(1.2) + ceil(-1.2) + ceil(3)", "4"),
        ("floor(1.8) + floor(-1.2)", "-1"),
        ("ceil(input_tokens / 500)", "3"),
        ("floor(-input_tokens / 500)", "-3"),
        ("round(2.5)", "3"),
        ("round(-2.5)", "-3"),
        ("round(2.4999)", "2"),
        ("round(0.125, 2)", "0.13"),
        ("round(-0.125, 2)", "-0.13"),
        ("round(1250, -2)", "1300"),
        ("round(input_tokens / 7, 1)", "171.4"),
        ("round(-input_tokens / 1000)", "-1"),
        ("clamp(5, 1, 3) + clamp(0, 1, 3) + clamp(2, 1, 3)", "6"),
        ("clamp(input_tokens, 10, 5)", "10"),
        ("tier(input_tokens, 1000, 1, 2000, 2, 3)", "2"),
        ("tier(1000, 1000, 1, 2)", "2"),
        ("tier(999.9, 1000, 1, 2)", "1"),
        ("tier(-1, 0, 0, 10000, 5, 100000, 10, 20)", "0"),
        ("tier(input_tokens, output_tokens, 1, input_tokens + 0.5, 0.5, 2)", "0.5"),
        ("percentile(50, 3, 1, 2)", "2"),
        ("percentile(50, 1, 2)", "1.5"),
        ("percentile(0, 3, 1)", "1"),
        ("percentile(100, 3, 1)", "3"),
        ("percentile(95, 7)", "7"),
        ("percentile(25, input_tokens, output_tokens, 0)", "150"),
        ("percentile(10, input_tokens, output_tokens, 0.5)", "60.4"),
        ("percentile(output_tokens / 6, input_tokens, output_tokens)", "750"),
        ("percentile(99.9, input_tokens, 0)", "1198.8"),
        # measures
        ("requests * 2", "2"),
        ("tool_calls", "3"),
        ("uncached_input_tokens", "950"),
        ("pages * 0.4", "1"),
        ("pages > 2", "1"),
        # not lowered
        ("input_tokens / output_tokens", "4"),
        ("output_tokens / input_tokens + 0.5", "0.75"),
        ("1 / pages", "0.4"),
        # only what is chosen is calculated
        ("1 / 0 if 0 else 4", "4"),
        ("if(search_results == 0, 7, input_tokens / search_results)", "7"),
        ("0 and 1 // search_results", "0"),
        ("2 > 3 > 1 // search_results", "0"),
        ("tier(input_tokens, 5000, 1, 1 % search_results, 2, 3)", "1"),
        (" 1 +\n\t2\r\n", "3"),
    ],
)
def test_value(text: str, expected: str) -> None:
    """A formula has the value that Python's rules, or its function's definition, give it."""
    assert value(text) == Fraction(expected)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("1 / 0", 2),
        ("input_tokens + 5 // search_results", 17),
        ("input_tokens % (search_results * 2)", 13),
        ("input_tokens / search_results", 13),
        ("0 * (1 // search_results)", 7),
        ("1 % (1 - 1)", 2),
        ("min(1, 2 / (1 - 1))", 9),
        ("percentile(input_tokens, 1, 2)", 11),
        ("percentile(0 - 1, 1, 2)", 13),
    ],
)
def test_calculation_that_fails(text: str, position: int) -> None:
    """A division by zero loads, and fails when it is calculated, with path and position."""
    formula = Formula(text, "models.m")
    with pytest.raises(ExpressionError) as caught:
        formula.exact(USAGE, 0)
    assert (caught.value.path, caught.value.position) == ("models.m", position)


@pytest.mark.parametrize(
    "text",
    [
        "1 + " * 1000 + "input_tokens",
        " + ".join(f"floor(input_tokens / {n})" for n in range(2, 150)),
        "*".join(["pages"] * 600),
        "tier(pages," + "1," * 2039 + "1,2)",
        " or ".join(["0"] * 800) + " or 1",
        "-" * 50 + "pages",
        "(" * 50 + "pages" + ")" * 50,
        "floor(0.3 + " * 50 + "input_tokens / 7" + ")" * 50,
        "percentile(33, 1, " * 50 + "input_tokens / 7" + ")" * 50,
        "tier(input_tokens, 0.5, 1, " * 50 + "input_tokens / 7" + ")" * 50,
        "pages if 0 else " * 50 + "1",
        "1 in (0, " * 50 + "1" + ")" * 50,
        "not " * 50 + "1",
        "1" + "<2" * 1500,
    ],
    ids=lambda text: text[:20],
)
def test_large_formulas(text: str) -> None:
    """Long chains and the deepest nesting load and calculate, by integers and by fractions alike."""
    value(text)


# Random formulas against Python itself. Each is made twice: as we write it, and as Python does.

Pair = tuple[str, str]

_NUMBERS = st.sampled_from(["0", "1", "2", "3", "0.5", "2.25", "10", "1000", "0.001", "7", "True", "False"])
_MEASURES = st.sampled_from(["input_tokens", "output_tokens", "search_results", "pages", "tool_calls"])
_CONDITIONS = st.sampled_from(
    ['model == "gpt-4o"', 'model in ("a", "gpt-4o")', '"gpt" in model', 'operation not in ["a"]', '"b" != operation']
)


def _binary(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    operators = ["+", "-", "*", "/", "//", "%", "<", "<=", ">", ">=", "==", "!=", " and ", " or "]
    return st.builds(
        lambda left, operator, right: tuple(f"{a}{operator}{b}" for a, b in zip(left, right, strict=True)),
        inner,
        st.sampled_from(operators),
        inner,
    )


def _function(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def call(name: str, arguments: list[Pair]) -> Pair:
        count = {"if": 3, "clamp": 3, "ceil": 1, "floor": 1, "round": 1}.get(name, len(arguments))
        count = count - count % 2 if name == "tier" else count
        ours, theirs = (", ".join(texts) for texts in zip(*arguments[:count], strict=True))
        if name == "percentile":
            ours, theirs = f"35, {ours}", f"35, {theirs}"
        if name == "round":
            ours, theirs = f"{ours}, 1", f"{theirs}, 1"
        return f"{name}({ours})", f"{name}_({theirs})"

    names = ["min", "max", "ceil", "floor", "round", "if", "tier", "clamp", "percentile"]
    return st.builds(call, st.sampled_from(names), st.lists(inner, min_size=4, max_size=6))


def _extended(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def shaped(shape: str, *parts: Pair) -> Pair:
        return shape.format(*(ours for ours, _ in parts)), shape.format(*(theirs for _, theirs in parts))

    shapes = ["({0})", "-({0})", "not {0}", "({0} if {1} else {2})", "({0}<{1}<={2})", "({0} in ({1}, {2}))", "-{0}"]
    shaped_pairs = st.builds(shaped, st.sampled_from(shapes), inner, inner, inner)
    bracketed = st.builds(lambda pair: (f"({pair[0]})", f"({pair[1]})"), shaped_pairs | _binary(inner))
    return _binary(inner) | bracketed | _function(inner) | shaped_pairs


_ATOMS = st.one_of(_NUMBERS, _MEASURES, _CONDITIONS.map(lambda text: f"({text})")).map(lambda text: (text, text))
FORMULAS = st.recursive(_ATOMS, _extended, max_leaves=12)


class _Exactly(ast.NodeTransformer):
    """Makes Python calculate with fractions: every number, and what would be a bool or an int, becomes one."""

    def _fraction(self, node: ast.expr) -> ast.expr:
        return ast.copy_location(ast.Call(ast.Name("F", ast.Load()), [node], []), node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return node if isinstance(node.value, str) else self._fraction(ast.Constant(str(node.value * 1)))

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        return self._fraction(self.generic_visit(node))  # type: ignore[arg-type]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        return self._fraction(self.generic_visit(node))  # type: ignore[arg-type]

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        return self._fraction(self.generic_visit(node))  # type: ignore[arg-type]

    def visit_Call(self, node: ast.Call) -> ast.expr:
        # What is chosen lazily cannot be a plain call.
        assert isinstance(node.func, ast.Name)
        arguments = [self.visit(argument) for argument in node.args]
        if node.func.id in ("if_", "tier_"):
            arguments = [ast.Lambda(ast.arguments([], [], None, [], [], None, []), argument) for argument in arguments]
        return ast.copy_location(ast.Call(node.func, arguments, []), node)


def _tier(value, *rest):  # type: ignore[no-untyped-def]
    measured = value()
    for limit, result in zip(rest[:-1:2], rest[1:-1:2], strict=True):
        if measured < limit():
            return result()
    return rest[-1]()


def _half_up(number: Fraction, places: Fraction) -> Fraction:
    scaled = abs(number) * 10**places
    return Fraction(math.floor(scaled + Fraction(1, 2)), 10**places) * (-1 if number < 0 else 1)


def _percentile(percent: Fraction, *numbers: Fraction) -> Fraction:
    ordered, rank = sorted(numbers), percent * (len(numbers) - 1) / 100
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low * (1 - rank % 1) + high * (rank % 1)


_PYTHON = {
    "F": Fraction,
    "min_": min,
    "max_": max,
    "ceil_": lambda x: Fraction(math.ceil(x)),
    "floor_": lambda x: Fraction(math.floor(x)),
    "round_": _half_up,
    "if_": lambda condition, then, otherwise: then() if condition() else otherwise(),
    "tier_": _tier,
    "clamp_": lambda x, low, high: max(low, min(x, high)),
    "percentile_": _percentile,
}


def python_value(text: str, names: dict[str, object]) -> Fraction | None:
    """What Python itself makes of a formula; None for a division by zero."""
    tree = ast.fix_missing_locations(_Exactly().visit(ast.parse(text, mode="eval")))
    try:
        return eval(compile(tree, "<formula>", "eval"), {**_PYTHON, **names})  # type: ignore[no-any-return]
    except ZeroDivisionError:
        return None


@given(
    pair=FORMULAS,
    input_tokens=st.integers(0, 3000),
    output_tokens=st.sampled_from([0, 1, 7, 1000]),
    pages=st.sampled_from([0, 1, 0.5, 2.25]),
)
@examples(150, long=4000)
def test_python_agrees(pair: Pair, input_tokens: int, output_tokens: int, pages: float) -> None:
    """Random formulas have the value that Python's own parser and evaluator give them."""
    ours, theirs = pair
    usage = UsageMetrics(
        model="gpt-4o",
        operation="chat",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        measures={"pages": pages},
    )
    names = {
        "model": "gpt-4o",
        "operation": "chat",
        "input_tokens": Fraction(input_tokens),
        "output_tokens": Fraction(output_tokens),
        "search_results": Fraction(0),
        "tool_calls": Fraction(3),
        "pages": Fraction(pages),
    }
    try:
        expected = python_value(theirs, names)
    except SyntaxError:  # `a*not b` is refused by both
        with pytest.raises(ExpressionError):
            Formula(ours, "m", OWN)
        return
    if expected is None:
        with pytest.raises(ExpressionError, match="division by zero"):
            value(ours, usage)
    else:
        assert value(ours, usage) == expected
