"""JSON and YAML are read exactly, and only where all readers would understand the same."""

import sys
from decimal import Decimal

import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.pricing.loading import load_json, load_yaml


def test_json_numbers_are_exact() -> None:
    """No number passes through a float."""
    assert load_json('{"a": 0.1, "b": 1.00, "c": 123456789012345678901234567890, "d": -1E2}') == {
        "a": Decimal("0.1"),
        "b": Decimal("1.00"),
        "c": 123456789012345678901234567890,
        "d": Decimal("-100"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        (b"\xff", "not UTF-8"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "exponent"),
        ('{"a": 1e-999999999}', "exponent"),
        ('{"a": ' + "1" * 31 + "}", "30 digits"),
        ("[" * 100_000, "nests too deep"),
    ],
)
def test_json_refused(text: str | bytes, message: str) -> None:
    """What is not exact, finite, unique JSON is refused."""
    with pytest.raises(ConfigError, match=message):
        load_json(text)


def test_yaml_scalars() -> None:
    """Plain scalars follow YAML 1.2, from their text; quoted ones are texts; keys are texts."""
    text = """
    a: 0.10
    b: .5
    c: 1e-3
    d: -7
    e: yes
    f: "1"
    g: true
    h: ~
    i:
    j: 1_000
    k: 2024-08-06
    l: 12:30:45
    m: |
      a +
      b
    7: seven
    n: [1, {o: p}]
    """
    assert load_yaml(text) == {
        "a": Decimal("0.10"),
        "b": Decimal("0.5"),
        "c": Decimal("0.001"),
        "d": -7,
        "e": "yes",
        "f": "1",
        "g": True,
        "h": None,
        "i": None,
        "j": "1_000",
        "k": "2024-08-06",
        "l": "12:30:45",
        "m": "a +\nb\n",
        "7": "seven",
        "n": [1, {"o": "p"}],
    }
    assert str(load_yaml("0.10")) == "0.10"
    assert load_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "anchor or alias at a"),
        ("b: *x", "alias"),
        ("a: {b: 1, b: 2}", "same key twice at a.b"),
        ("a: !!python/object:os.system 1", "a tag at a"),
        ("a: !!int 1", "a tag at a"),
        ("a:\n  <<: {b: 1}", "merge key at a"),
        ("? [a]\n: 1", "key that is not a text"),
        ("a: .nan", "a: numbers are finite and decimal"),
        ("a: [1, .inf]", r"a\[1\]: numbers are finite"),
        ("a: 0x10", "a: numbers are finite and decimal"),
        ("a: 1e99", "a: a number's exponent"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: [", "not YAML"),
        ("a: 'x", "not YAML"),
        ("\x00", "not YAML"),
        ("[" * 150 + "]" * 150, "nests"),
        (b"\xff\xfe\xfd", "not UTF-8"),
    ],
)
def test_yaml_refused(text: str | bytes, message: str) -> None:
    """What two readers could understand differently is refused, with its place."""
    with pytest.raises(ConfigError, match=message):
        load_yaml(text)


def test_yaml_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(ConfigError, match=r"pip install 'ducto-redis\[yaml\]'"):
        load_yaml("a: 1")
