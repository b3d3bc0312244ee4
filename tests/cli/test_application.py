"""The command line as a whole: its help, its documentation, and how a failure is told."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from ducto_redis.cli.application import app
from tests.cli.conftest import Ducto

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def commands_below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_below(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(commands_below(typer.main.get_command(app), ()))


def test_commands() -> None:
    """These are the commands, and no others."""
    assert {" ".join(path) for path in COMMANDS} == {
        "demo",
        "worker",
        "events tail",
        "events worker",
        "events dead-letters",
        "events retry",
        "events secret",
        "doctor",
        "balance",
        "credits add",
        "grants",
        "refund",
        "adjust",
        "freeze",
        "unfreeze",
        "sweep",
        "plan set",
        "plan show",
        "plan remove",
        "cap set",
        "cap list",
        "cap remove",
        "cap raise",
        "cap clear",
        "team create",
        "team show",
        "team add",
        "team remove",
        "team role",
        "leases list",
        "leases release",
        "analytics spend",
        "analytics top",
        "analytics models",
        "analytics members",
        "analytics daily",
        "analytics stats",
        "analytics usage",
        "analytics transactions",
        "analytics anomalies",
        "ledger migrate",
        "ledger verify",
        "bench",
        "explain",
        "pricing activate",
        "pricing coverage",
        "pricing diff",
        "pricing export",
        "pricing get",
        "pricing import",
        "pricing list",
        "pricing replay",
        "pricing set",
        "pricing validate",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...], ducto: Ducto) -> None:
    """Every command's help says what it does and how it is typed."""
    help_text = ducto(*path, "--help")
    assert help_text.exit_code == 0
    assert f"Example: ducto {' '.join(path)}" in help_text.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_command_is_documented(path: tuple[str, ...]) -> None:
    """docs/command-line.md has a section for every command, which names all of its options."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    found = [section for section in sections if section.startswith(f"`ducto {' '.join(path)}")]
    assert len(found) == 1
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts if option.startswith("--")}
    for option in options - {"--help"}:
        assert f"`{option}" in found[0]


def test_group_without_command_shows_help(ducto: Ducto) -> None:
    """`ducto` and `ducto credits` alone say what there is."""
    assert "pricing" in ducto().output
    assert "add" in ducto("credits").output


def test_version(ducto: Ducto) -> None:
    """--version prints the installed package's version."""
    result = ducto("--version")
    assert result.exit_code == 0
    try:
        assert result.stdout == f"ducto {metadata.version('ducto-redis')}\n"
    except metadata.PackageNotFoundError:
        assert result.stdout == "ducto, from sources that are not installed\n"


def test_usage_error_exits_with_2(ducto: Ducto) -> None:
    """What was typed wrong is told apart from what failed."""
    assert ducto("balance").exit_code == 2
    assert ducto("nonsense").exit_code == 2
    assert ducto("pricing", "activate", "0").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("cap", "set", "u1", "5", "fortnight"),
            r"'window': 'fortnight' is not one of 'minute', .*`ducto cap set --help`",
        ),
        (
            ("team", "add", "acme", "bob", "--role", "boss"),
            r"'--role': 'boss' is not one of 'owner', 'admin', 'member'",
        ),
        (("pricing", "get", "x"), r"'version': .*integer .it was 'x'."),
        (("balance",), r"missing argument 'account'; see `ducto balance --help`"),
        (("blance",), r"no such command 'blance'; did you mean 'balance'"),
        (("--nope",), r"no such option: --nope; see `ducto --help`"),
        (("worker", "--nope"), r"no such option: --nope; see `ducto worker --help`"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: tuple[str, ...], said: str, ducto: Ducto) -> None:
    """It names what was given, what there is, and whose help says more; the exit status is 2."""
    result = ducto(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert re.match(rf"ducto: .*{said}", result.stderr)


def test_a_group_without_a_command_shows_its_help(ducto: Ducto) -> None:
    """As `--help` does."""
    for group in ((), ("cap",), ("analytics",)):
        assert "Usage: " in ducto(*group).output


def test_no_engine(ducto: Ducto) -> None:
    """Without DUCTO_REDIS_URL a command says what to set, and does not make an engine of its own."""
    result = ducto("balance", "u1")
    assert result.exit_code == 1
    assert result.stderr.startswith("ducto: DUCTO_REDIS_URL is not set; ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DUCTO_REDIS_URL", "redis://user:hunter2@127.0.0.1:1/0"),
        ("DUCTO_REDIS_URL", "redis://user:hunter2@127.0.0.1:port/0"),
        ("DUCTO_REDIS_URL", "redis:hunter2@127.0.0.1"),
        ("DUCTO_REDIS_URL", "h:hunter2@x"),
        ("DUCTO_REDIS_URL", "h:hunter2://x"),
        ("DUCTO_REDIS_URL", "http://u:hunter2@x"),
        ("DUCTO_REDIS_URL", "memory://"),
        ("DUCTO_LEDGER_URL", "postgresql://user:hunter2@127.0.0.1:1/ledger"),
        ("DUCTO_LEDGER_URL", "postgresql://user:hunter2@127.0.0.1:port/ledger"),
        ("DUCTO_LEDGER_URL", "mysql://user:hunter2@127.0.0.1/ledger"),
        ("DUCTO_LEDGER_URL", "hunter2"),
        ("DUCTO_LEDGER_URL", "sqlite:////no/such/folder/ledger.db"),
        ("DUCTO_LEDGER_URL", ""),
    ],
)
def test_wrong_url_is_one_line_without_password(
    name: str, url: str, ducto: Ducto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL that cannot be used is told in one line, which never repeats its password."""
    monkeypatch.setenv(name, url)
    result = ducto("balance", "u1") if name == "DUCTO_REDIS_URL" else ducto("ledger", "migrate")
    assert result.exit_code == 1
    assert result.stderr.startswith("ducto: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("name", "value"), [("DUCTO_PARTITIONS", "many"), ("DUCTO_PARTITIONS", "0"), ("DUCTO_NAMESPACE", "a{b}")]
)
@pytest.mark.usefixtures("engine")
def test_wrong_setting(name: str, value: str, ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that cannot be is one line, not a traceback."""
    monkeypatch.setenv(name, value)
    result = ducto("balance", "u1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_without_the_extra() -> None:
    """Where typer is not installed, `ducto` prints the pip command and exits with 1."""
    script = "import sys; sys.modules['typer'] = None\nfrom ducto_redis.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "ducto: the command line needs a few packages more: pip install 'ducto-redis[cli]'\n"


def test_help_imports_nothing_heavy() -> None:
    """`ducto --help` loads neither the ledger's packages nor the demo's."""
    script = (
        "import sys\nfrom ducto_redis.cli import main\nsys.argv = ['ducto', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'sqlalchemy', 'openai', 'uvicorn', 'ruamel.yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is none of ours is not dressed up as one line: it is a bug, and keeps its traceback."""
    monkeypatch.setattr("ducto_redis.cli.accounts.open_manager", lambda: 1 / 0)
    result = CliRunner().invoke(app, ["balance", "u1"])
    assert isinstance(result.exception, ZeroDivisionError)
