"""`ducto pricing`."""

import json
from pathlib import Path
from typing import Any

import pytest

from ducto_redis.pricing import PricingDocument
from tests.cli.conftest import Ducto

DOCUMENT = """\
version: 1
measures: [gpu_seconds]
models:
  gpt-4o: "input_tokens * 0.0025 + output_tokens * 0.01"
  render: "gpu_seconds * 0.4"
fixed: {daily_report: 10, embed: 2.5}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "pricing.yaml"
    path.write_text(DOCUMENT)
    return str(path)


def test_validate(ducto: Ducto, file: str) -> None:
    """A right document is said to be right, without any server."""
    assert ducto("pricing", "validate", file).stdout == f"{file} is right; models: 2, fixed: 2\n"
    assert json.loads(ducto("pricing", "validate", file, "--json").stdout) == {
        "valid": True,
        "models": 2,
        "tools": 0,
        "fixed": 2,
        "plans": 0,
        "warnings": [],
    }


def test_validate_warns_of_prices_that_are_far_off(ducto: Ducto, file: str) -> None:
    """A price per million that stands for one token is warned of; the document is right all the same."""
    Path(file).write_text('models: {gpt-4o: "input_tokens * 2.5"}')
    result = ducto("pricing", "validate", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file} is right; models: 1\n"
    assert result.stderr.startswith("warning: models.gpt-4o: input_tokens cost 1,000,000 credits for a dollar")
    assert len(json.loads(ducto("pricing", "validate", file, "--json").stdout)["warnings"]) == 1


def test_validate_says_path_and_position(ducto: Ducto, file: str) -> None:
    """A mistake in a formula is told with its path in the document and its position in the formula."""
    Path(file).write_text(DOCUMENT.replace("output_tokens", "outputs"))
    wrong = ducto("pricing", "validate", file)
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("ducto: models.gpt-4o: unknown measure 'outputs'")
    assert wrong.stderr.endswith("(at character 24)\n")
    error = json.loads(ducto("pricing", "validate", file, "--json").stdout)["error"]
    assert (error["code"], error["path"], error["position"]) == ("expression_error", "models.gpt-4o", 24)


def test_validate_json_exits_with_1(ducto: Ducto, tmp_path: Path) -> None:
    """With --json too, a wrong document is exit status 1."""
    result = ducto("pricing", "validate", str(tmp_path / "missing.yaml"), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["valid"] is False


@pytest.mark.usefixtures("engine")
def test_publish_list_activate(ducto: Ducto, file: str) -> None:
    """Publishing makes the next version and activates it; an older one can be made active again."""
    assert ducto("pricing", "set", file).stdout == "published and activated version 1\n"
    assert json.loads(ducto("pricing", "set", file, "--json").stdout)["version"] == 2
    assert ducto("pricing", "activate", "1").stdout == "version 1 is active\n"
    listed = json.loads(ducto("pricing", "list", "--json").stdout)
    assert [(it["version"], it["active"]) for it in listed] == [(2, False), (1, True)]
    assert ducto("pricing", "list").stdout.count("active") == 2  # the title, and one version
    missing = ducto("pricing", "activate", "9")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)


@pytest.mark.usefixtures("engine")
def test_wrong_document_is_not_published(ducto: Ducto, file: str) -> None:
    """A document with a mistake is refused before anything is written."""
    Path(file).write_text("models: {m: '1 +'}")
    assert ducto("pricing", "set", file).exit_code == 1
    ducto("credits", "add", "u1", "1")  # makes the namespace
    assert ducto("pricing", "list", "--json").stdout == "[]\n"
    assert "was published yet" in ducto("pricing", "list").stdout
    assert ducto("pricing", "get").exit_code == 1


@pytest.mark.parametrize(
    "document",
    [
        {"models": {"m": "1"}},
        {"models": {"yes": "1", "~": "2", "1.0": "3", "null": "4", "ünïcode 😀": "5", "a: b #": "6"}},
        {"fixed": {"large": "9007199254.740991", "small": "0.000001", "whole": 12}, "min_balance": "0.1"},
        {"models": {"m": "input_tokens * (" + " + ".join(["0.00001"] * 200) + ")"}},
        {"models": {"m": "1 if model == \"it's #1: 'x'\" else 2"}},
        {
            "models": {"m": "1"},
            "plans": {"no": {"id": "no", "name": "1e3", "free_allowance": "0.5", "features": {"chat": True, "n": 2}}},
        },
    ],
)
@pytest.mark.usefixtures("engine")
def test_get_gives_the_document_back(document: dict[str, Any], ducto: Ducto, tmp_path: Path) -> None:
    """What `pricing get` prints, as YAML or as JSON, reads back as the document that was published."""
    text = json.dumps(document)
    for number in ("9007199254.740991", "0.000001", "0.1", "0.5"):
        text = text.replace(f'"{number}"', number)
    path = tmp_path / "document.json"
    path.write_text(text)
    published = PricingDocument.from_file(path)
    assert ducto("pricing", "set", str(path)).exit_code == 0
    assert PricingDocument.from_yaml(ducto("pricing", "get").stdout) == published
    printed = ducto("pricing", "get", "1", "--json").stdout
    inner = printed[printed.index('"document":') + len('"document":') : printed.rindex("}")]
    assert PricingDocument.from_json(inner) == published


def test_validate_says_everything_that_is_wrong(ducto: Ducto, file: str) -> None:
    """All mistakes of a document are told at once, each with its path."""
    Path(file).write_text('models: {a: "tokns", b: "1 +"}\nplan: 3\n')
    wrong = ducto("pricing", "validate", file)
    assert wrong.exit_code == 1
    lines = wrong.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["models.a", "models.b", "plan", "ducto"]
    assert lines[-1] == f"ducto: {file} has 3 mistakes"
    problems = json.loads(ducto("pricing", "validate", file, "--json").stdout)["problems"]
    assert problems == lines[:-1]
