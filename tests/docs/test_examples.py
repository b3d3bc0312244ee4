"""Every example of the README and of docs/ runs.

The `python` blocks of a page run in order, in one namespace, in a temporary folder; `await` may stand at the top level.
Their redis:// and postgresql:// URLs on localhost are replaced by those of servers that the test starts. The `ducto`
commands of `console` and `bash` blocks have to be understood by the command line. A block that cannot run says why in a
comment right above it: <!-- not run: reason -->
"""

import ast
import asyncio
import inspect
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from ducto_redis.cli.application import app
from tests.servers import Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\S*)[^\n]*$")
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
REDIS_URL = re.compile(r"redis://localhost(:\d+)?(/\d+)?")
POSTGRES_URL = re.compile(r"postgresql://[^\"'\s]*@?localhost[^\"'\s]*")
OPERATORS = {"|", "||", "&", "&&", ";", ">", ">>", "<"}


class Block(NamedTuple):
    """A fenced block: its language, the line its text starts on, its text, and whether it is marked `not run`."""

    language: str
    line: int
    text: str
    not_run: bool


def blocks_of(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        number += 1
        if not fence:
            continue
        above = next((line for line in reversed(lines[: number - 1]) if line.strip()), "")
        start = number
        while number < len(lines) and lines[number].strip() != fence["ticks"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"the block that opens in line {start} does not close")
        text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[start:number])
        yield Block(fence["language"], start + 1, text, NOT_RUN.fullmatch(above.strip()) is not None)
        number += 1


def commands_of(block: Block) -> Iterator[list[str]]:
    """The `ducto` commands of a shell block, without prompts, assignments, pipes and redirections."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "console" and not line.startswith("$ "):
            continue  # What the command printed.
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if token not in OPERATORS:
                command.append(token)
                continue
            while command and re.match(r"\w+=", command[0]):
                del command[0]
            if command and command[0] in ("ducto", "ducto-redis", ".venv/bin/ducto"):
                yield command[1:]
            command = []


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_examples_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    start_valkey: Callable[..., Server],
) -> None:
    """The Python blocks of a page run one after the other, as a reader would try them."""
    text = page.read_text()
    blocks = [block for block in blocks_of(text) if block.language == "python" and not block.not_run]
    source = "".join(block.text for block in blocks)
    redis_url = start_valkey().url if REDIS_URL.search(source) else ""
    postgres_url = request.getfixturevalue("postgres_url") if POSTGRES_URL.search(source) else ""
    for name in ("DUCTO_REDIS_URL", "DUCTO_LEDGER_URL", "DUCTO_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    with asyncio.Runner() as runner:
        for block in blocks:
            code = POSTGRES_URL.sub(postgres_url, REDIS_URL.sub(redis_url, block.text))
            run(code, page, block.line, module, runner)


def run(code: str, page: Path, line: int, module: types.ModuleType, runner: asyncio.Runner) -> None:
    """Runs a block so that a traceback shows the line of the page."""
    compiled = compile("\n" * (line - 1) + code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    function = types.FunctionType(compiled, module.__dict__)
    if compiled.co_flags & inspect.CO_COROUTINE:
        runner.run(function())
    else:
        function()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_are_understood(page: Path) -> None:
    """Every `ducto` command of a page exists, with the options that it is shown with."""
    for block in blocks_of(page.read_text()):
        if block.language not in ("console", "bash", "sh", "shell") or block.not_run:
            continue
        for command in commands_of(block):
            done = CliRunner().invoke(app, [*command, "--help"], prog_name="ducto", env={"TERM": "dumb"})
            assert done.exit_code == 0, f"{page.name}, line {block.line}: ducto {shlex.join(command)}\n{done.output}"


def test_blocks_are_found() -> None:
    """The reader of pages finds blocks, their lines, and the mark that keeps one from being run."""
    page = "Text\n\n```python\nx = 1\n```\n\n<!-- not run: needs a key -->\n\n  ```bash\n  a\n    b\n  ```\n"
    assert list(blocks_of(page)) == [
        Block("python", 4, "x = 1", False),
        Block("bash", 10, "a\n  b", True),
    ]


def test_unclosed_block_is_an_error() -> None:
    """A block that does not close would hide the examples below it."""
    with pytest.raises(ValueError, match="line 2"):
        list(blocks_of("Text\n```python\nx = 1\n"))


def test_commands_are_found() -> None:
    """The reader of shell blocks finds the commands behind prompts and assignments, and before pipes."""
    console = Block(
        "console", 1, "$ A=1 ducto balance 'u 1' | cat\nducto is output\n$ make test && ducto doctor", False
    )
    assert list(commands_of(console)) == [["balance", "u 1"], ["doctor"]]
    bash = Block("bash", 1, "ducto credits add u1 \\\n  10 > out  # a comment\npip install ducto-redis", False)
    assert list(commands_of(bash)) == [["credits", "add", "u1", "10"]]
