"""What is no formula is refused when it is read, with the document path and the position of the first mistake."""

import pytest

from ducto_redis.errors import ExpressionError
from ducto_redis.pricing.formula import Formula


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        # names and functions
        ("input_token * 2", 0, "unknown measure 'input_token'; did you mean 'input_tokens'"),
        ("1 + foo", 4, "unknown measure 'foo'"),
        ("foo(1)", 0, "unknown function 'foo'"),
        ("1 + abs(2)", 4, "unknown function 'abs'"),
        ("input_tokens(1)", 0, "unknown function 'input_tokens'"),
        ("__import__('os')", 0, "unknown function"),
        ("min", 0, "write min(a, b, ...)"),
        ("max + 1", 0, "write max(a, b, ...)"),
        ("nan", 0, "every number is finite"),
        ("1 + inf", 4, "every number is finite"),
        ("None", 0, "None"),
        # arity
        ("tier(input_tokens, 1, 2)", 0, "even number of arguments, at least 4, not 3"),
        ("tier(1, 2)", 0, "not 2"),
        ("tier(1, 2, 3, 4, 5)", 0, "not 5"),
        ("1 + if(1, 2)", 4, "3 arguments, not 2"),
        ("if(1, 2, 3, 4)", 0, "not 4"),
        ("clamp(1, 2)", 0, "3 arguments"),
        ("clamp(1, 2, 3, 4)", 0, "3 arguments"),
        ("percentile(50)", 0, "at least 2"),
        ("percentile(100.5, 1, 2)", 11, "p from 0 to 100"),
        ("percentile(-1, 1, 2)", 11, "p from 0 to 100"),
        ("min()", 0, "at least 1"),
        ("max()", 0, "at least 1"),
        ("ceil(1, 2)", 0, "1 argument"),
        ("floor()", 0, "1 argument"),
        ("round(1, 2, 3)", 0, "1 or 2 arguments"),
        ("round(1, 0.5)", 9, "whole number of places"),
        ("round(1, input_tokens)", 9, "whole number of places"),
        ("round(1, 19)", 9, "whole number of places"),
        # what Python has and formulas have not
        ("input_tokens ** 2", 13, "powers"),
        ("model.x", 5, "attributes"),
        ("(1).real", 3, "attributes"),
        ("input_tokens[0]", 12, "subscripts"),
        ("min(1)[0]", 6, "subscripts"),
        ("lambda: 1", 0, "lambdas"),
        ("min(lambda x: x)", 4, "lambdas"),
        ("(input_tokens for x in y)", 14, "comprehensions"),
        ("1 in [x for x in y]", 8, "comprehensions"),
        ("input_tokens = 1", 13, "assignments"),
        ("(a := 1)", 3, "assignments"),
        ("min(a=1)", 5, "assignments"),
        ("min(*output_tokens)", 4, "starred"),
        ("1 is 1", 2, "`is`"),
        ("await 1", 0, "await"),
        ("(1)(2)", 3, "only functions are called"),
        ("{1}", 0, "braces"),
        ("1; 2", 1, "';'"),
        ("1 & 2", 2, "'&'"),
        ("~1", 0, "'~'"),
        ("1 << 2", 3, "value is missing"),
        ("1 <> 2", 3, "value is missing"),
        ("1 # more", 2, "comments"),
        ("f'x'", 1, "found"),
        ("`1`", 0, "not allowed"),
        ("input_tokens \u00d7 2", 13, "'\u00d7'"),
        # texts where numbers belong, and numbers where texts belong
        ("'a'", 0, "a text stands where a number belongs"),
        ("model", 0, "model, a text"),
        ("model + 1", 0, "model, a text"),
        ("1 + 'a'", 4, "a text"),
        ("-model", 1, "model, a text"),
        ("not model", 4, "model, a text"),
        ("model and 1", 0, "model, a text"),
        ("1 if model else 2", 5, "model, a text"),
        ("'a' if 1 else 2", 0, "a text"),
        ("model == 1", 0, "model, a text"),
        ("model < 'b'", 0, "model, a text"),
        ("model == 'a' < 'b'", 9, "a text"),
        ("model in ('a', 1)", 0, "model, a text"),
        ("1 in (1, 'a')", 9, "a text"),
        ("min('a', 1)", 4, "a text"),
        ("'a' in 'abc'", 7, "right of `in`"),
        ("model in ('a')", 10, "right of `in`"),
        ("1 in 2", 5, "right of `in`"),
        ("1 in model", 5, "model, a text"),
        # lists
        ("(1, 2)", 0, "a list stands only right of `in`"),
        ("[1]", 0, "a list stands only right of `in`"),
        ("()", 0, "empty brackets"),
        ("1 in ()", 5, "empty list"),
        ("1 in []", 5, "empty list"),
        ("1 in (1, 2) + 3", 12, "a list"),
        ("1 in (1, 2) == 1", 12, "a list"),
        # literals
        ("007", 0, "leading zeros"),
        ("0x10", 0, "does not begin a decimal number"),
        ("0b1", 0, "does not begin a decimal number"),
        ("1__0", 0, "does not begin a decimal number"),
        ("1_", 0, "does not begin a decimal number"),
        ("1e", 0, "does not begin a decimal number"),
        ("1j", 0, "does not begin a decimal number"),
        ("1.2.3", 0, "does not begin a decimal number"),
        ("2if 1 else 3", 0, "does not begin a decimal number"),
        ("1e19", 0, "exponent"),
        ("1e-19", 0, "exponent"),
        ("1e400", 0, "exponent"),
        ("1e" + "9" * 4000, 0, "exponent"),
        ("1" * 31, 0, "30 digits"),
        ("0." + "1" * 30, 0, "30 digits"),
        ("model == 'a", 9, "no closing"),
        ("model == 'a\\n'", 11, "backslashes"),
        ("model == 'a\x00'", 11, "control characters"),
        # incomplete
        ("", 0, "a value is missing"),
        ("   ", 3, "a value is missing"),
        ("1 +", 3, "a value is missing"),
        ("* 2", 0, "a value is missing"),
        ("1 2", 2, "should end here"),
        ("'a' 'b'", 4, "should end here"),
        ("(1", 2, "not closed"),
        ("1)", 1, "should end here"),
        ("(1]", 2, "not closed"),
        ("min(1 2)", 6, "not closed"),
        ("min(,)", 4, "a value is missing"),
        ("1 if 2", 6, "needs an `else`"),
        ("1 if 2 else", 11, "a value is missing"),
        ("if", 0, "a value is missing"),
        ("else 1", 0, "a value is missing"),
        ("and 1", 0, "a value is missing"),
        ("1 not 2", 6, "followed by `in`"),
        ("1 * not 2", 4, "`not` needs brackets"),
        ("1 == not 2", 5, "`not` needs brackets"),
        ("1 if 0 if 1 else 2 else 3", 7, "needs an `else`"),
        # of two mistakes the first
        ("foo bar \x00", 4, "should end here"),
    ],
)
def test_refused(text: str, position: int, reason: str) -> None:
    """A text that is no formula is refused with its path, the position, and the reason."""
    with pytest.raises(ExpressionError) as caught:
        Formula(text, "models.gpt-4o")
    assert caught.value.path == "models.gpt-4o"
    assert reason in caught.value.reason
    assert caught.value.position == position
    assert str(caught.value).startswith("models.gpt-4o: ")


@pytest.mark.parametrize(
    ("before", "middle", "after"),
    [
        ("(", "1", ")"),
        ("-", "1", ""),
        ("not ", "1", ""),
        ("min(", "1", ")"),
        ("1 if 1 else ", "1", ""),
        ("1 in (0, ", "1", ")"),
    ],
)
def test_depth(before: str, middle: str, after: str) -> None:
    """Fifty levels of nesting load, fifty-one do not."""
    Formula(before * 50 + middle + after * 50, "m")
    with pytest.raises(ExpressionError, match="at most 50 deep"):
        Formula(before * 51 + middle + after * 51, "m")


def test_flat_chains_do_not_nest() -> None:
    """A long sum is not deep."""
    Formula("+".join(["1"] * 2000), "m")


def test_length() -> None:
    """4096 bytes load, one more does not; bytes count, not characters."""
    Formula("1" + " " * 4095, "m")
    for text in ("1" + " " * 4096, "model == '" + "é" * 2044 + "'"):
        with pytest.raises(ExpressionError, match="4096 bytes") as caught:
            Formula(text, "m")
        assert caught.value.position is None


def test_surrogates() -> None:
    """Text that is not Unicode is refused, not a crash."""
    with pytest.raises(ExpressionError):
        Formula("\ud800", "m")


def test_reads() -> None:
    """A formula knows which measures it reads."""
    formula = Formula("pages * 2 if model == 'a' else if(requests, input_tokens, 0)", "m", {"pages"})
    assert formula.reads == {"pages", "model", "requests", "input_tokens"}
