"""`ducto pricing diff` and `ducto pricing export`."""

import json
from pathlib import Path

import pytest

from ducto_redis.pricing import PricingDocument
from tests.cli.conftest import Ducto

BEFORE = """\
models:
  gpt-4o: "input_tokens * 0.0025 + output_tokens * 0.01"
  old: "output_tokens"
  _default: "input_tokens"
fixed: {report: 10}
plans: {pro: {free_allowance: 50}}
"""
AFTER = """\
models:
  gpt-4o: "input_tokens * 0.002 + output_tokens * 0.01"
  _default: "1 * input_tokens"
fixed: {report: 12}
plans: {pro: {free_allowance: 100, features: {chat: true}}}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(BEFORE)
    after.write_text(AFTER)
    return str(before), str(after)


def test_files_are_compared_without_a_server(ducto: Ducto, files: tuple[str, str]) -> None:
    """Two files are compared: formulas with their prices before and after, amounts with the percentage."""
    before, after = files
    assert ducto("pricing", "diff", before, after).stdout == (
        f"{before} -> {after}\n"
        "\n"
        "models\n"
        "  changed  _default  (the same price in other words)\n"
        "           - input_tokens\n"
        "           + 1 * input_tokens\n"
        "  changed  gpt-4o\n"
        "           - input_tokens * 0.0025 + output_tokens * 0.01\n"
        "           + input_tokens * 0.002 + output_tokens * 0.01\n"
        "             1,000,000 input_tokens   2500 -> 2000 (-20 %)\n"
        "             1,000,000 output_tokens  10000, as before\n"
        "  removed  old  (now priced by models._default)\n"
        "           - output_tokens\n"
        "           + 1 * input_tokens\n"
        "             1,000,000 output_tokens  1000000 -> 0 (-100 %)\n"
        "             1,000,000 input_tokens   0 -> 1000000\n"
        "\n"
        "fixed\n"
        "  changed  report  10 -> 12 (+20 %)\n"
        "\n"
        "plans\n"
        "  added    pro.features.chat  true\n"
        "  changed  pro.free_allowance  50 -> 100 (+100 %)\n"
    )
    assert ducto("pricing", "diff", before, before).stdout.endswith("the documents say the same\n")


@pytest.mark.usefixtures("engine")
def test_versions_and_files_are_compared(ducto: Ducto, files: tuple[str, str]) -> None:
    """A published version, the active one and a file can be compared in any combination; --json has exact numbers."""
    before, after = files
    ducto("pricing", "set", before)
    ducto("pricing", "set", after)
    assert ducto("pricing", "diff", "active", after).stdout == (
        f"version 2 (active) -> {after}\nthe documents say the same\n"
    )
    result = json.loads(ducto("pricing", "diff", "1", "active", "--json").stdout)
    assert (result["before"], result["after"]) == ("version 1", "version 2 (active)")
    changed = {change["path"]: change for change in result["changes"]}
    assert changed["models.gpt-4o"]["rates"][0] == {
        "measure": "input_tokens",
        "per": 1000000,
        "before": "2500",
        "after": "2000",
        "percent": "-20",
    }
    assert (changed["plans.pro.free_allowance"]["before"], changed["fixed.report"]["after"]) == (
        "50.000000",
        "12.000000",
    )
    missing = ducto("pricing", "diff", "1", "9")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("name", "message"), [("latest", "no pricing document"), ("0", "numbered from 1"), ("x.toml", "x.toml")]
)
def test_what_is_no_document(ducto: Ducto, files: tuple[str, str], name: str, message: str) -> None:
    """A name that is neither a version, nor `active`, nor a document's file is refused in one line."""
    result = ducto("pricing", "diff", files[0], name)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert message in result.stderr


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_export_reads_back(ducto: Ducto, files: tuple[str, str], form: str, tmp_path: Path) -> None:
    """What is exported is a file that can be published again: the same document, of any version."""
    for file in files:
        ducto("pricing", "set", file)
    exported = tmp_path / f"exported.{form}"
    for arguments, original in ((("1",), files[0]), ((), files[1])):
        exported.write_text(ducto("pricing", "export", *arguments, "--format", form).stdout)
        assert PricingDocument.from_file(exported) == PricingDocument.from_file(original)
    assert ducto("pricing", "export", "--format", "toml").exit_code == 2
