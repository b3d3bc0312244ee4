"""The house keeps its shape: imports run downwards, files stay small, and each Lua script's header tells the truth."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ducto_redis.engine.scripts import load_scripts
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.core import ManagerCore

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ducto_redis"
FLOORS = {
    "engine": 1,
    "pricing": 2,
    "ledger": 2,
    "store": 2,
    "events": 2,
    "journal": 3,
    "explain": 3,
    "testing": 3,
    "manager": 4,
    "middleware": 5,
    "clients": 6,
    "delivery": 6,
    "doctor": 7,
    "benchmark": 8,
    "cli": 9,
}
GROUND = 0
MAX_LINES = 600

PYTHON_FILES = sorted(
    path
    for folder in (PACKAGE, PACKAGE / "middleware")
    for path in folder.rglob("*.py")
    if "__pycache__" not in path.parts
)
SCRIPT_FILES = {path.stem: path for path in sorted((ROOT / "lua").glob("*.lua"))}
PIECES = {f"lib/{path.stem}": path for path in sorted((ROOT / "lua" / "lib").glob("*.lua"))}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floor_of(module: tuple[str, ...]) -> int:
    """The floor of a module, given by its path in the package: ("engine", "keys")."""
    return FLOORS[module[0]] if len(module) > 1 or module[0] in FLOORS else GROUND


def room_of(module: tuple[str, ...]) -> str:
    """The room of a module, given as for `floor_of`; files of the ground floor share one."""
    return module[0] if floor_of(module) != GROUND else ""


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(("ducto_redis", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported_files(path: Path, files: Mapping[str, Path]) -> set[str]:
    """The files of the package that a file imports, by their dotted names."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` imports the module; all else comes from the file that is named.
            found |= {name if name in files else node.module for name in names}
    # A package around a module runs before the module does; the packages around this file have begun already.
    around = {name.rpartition(".")[0] for name in found}
    around = {package for package in around if not f"{module_of(path)}.".startswith(f"{package}.")}
    return (found | around) & files.keys()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_modules(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports from the package, wherever in the file, as paths in the package; () is the package itself."""
    package = ("ducto_redis", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*above, *(node.module or "").split(".")) if node.module else above
            is_the_package = module == ("ducto_redis",)
            names = [(*module, alias.name) if is_the_package else module for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "ducto_redis":
                inner = name[1:]
                yield inner if inner and is_module(inner) else ()


def is_module(inner: tuple[str, ...]) -> bool:
    return inner[0] in FLOORS or (PACKAGE / f"{inner[0]}.py").exists()


def test_imports_run_strictly_downwards() -> None:
    """A file imports from its own room or from a strictly lower floor, and never from the package's front door."""
    wrong = []
    for path in PYTHON_FILES:
        inner = path.relative_to(PACKAGE).with_suffix("").parts
        if inner in (("__init__",), ("__main__",)):
            continue
        own = floor_of(inner)
        for module in imported_modules(path):
            if not module:
                wrong.append(f"{relative(path)} imports from ducto_redis itself; import from the module that has it")
            elif room_of(module) != room_of(inner) and floor_of(module) >= own:
                wrong.append(f"{relative(path)} (floor {own}) imports ducto_redis.{'.'.join(module)}")
    assert wrong == []


def test_no_files_import_each_other() -> None:
    """The imports of files form no circle, those for types alone included."""
    files = {module_of(path): path for path in PYTHON_FILES}
    imports = {module: sorted(imported_files(path, files) - {module}) for module, path in files.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"these files import each other: {' <- '.join(error.args[1])}")


def test_every_folder_has_a_floor() -> None:
    """A folder of the package that the design does not know needs a place in it first."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"lua"} == set(FLOORS)


def test_the_architecture_is_described() -> None:
    """docs/architecture.md names every room, with its floor, and no file or folder that does not exist."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    floors = re.split(r"^(?=floor |ground )", page, flags=re.MULTILINE)
    described = {
        room: int(floor[len("floor ") :].split()[0])
        for floor in floors
        if floor.startswith("floor ")
        for room in re.findall(r"^(?:floor \d +|  +)(?:ducto_redis/)?(\w+)/ ", floor, re.MULTILINE)
    }
    assert described == FLOORS
    named = set(re.findall(r"(?<![\w/.<>])((?:[\w-]+/)+(?:[\w-]+\.(?:py|lua|md))?)(?![\w/*<])", page))
    places = (ROOT, PACKAGE, PACKAGE / "middleware")
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
    files = set(re.findall(r"`([a-z]\w*\.(?:py|lua))`", page))
    assert files - {path.name for path in (*PYTHON_FILES, *SCRIPT_FILES.values(), *PIECES.values())} == set()
    described_files = {path.name for path in PACKAGE.glob("[a-z]*.py") if re.search(rf"\b{path.stem}\b", page)}
    assert {path.name for path in PACKAGE.glob("[a-z]*.py")} - described_files == set()


def test_no_file_is_long() -> None:
    """No source file, script or test has more lines than one sitting takes."""
    sources = [*PYTHON_FILES, *SCRIPT_FILES.values(), *PIECES.values(), *(ROOT / "tests").rglob("*.py")]
    lengths = {relative(path): len(path.read_text().splitlines()) for path in sources}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def split_header(text: str) -> tuple[str, str]:
    """A script's header, the comment it opens with (after the shebang), and its code without comments."""
    lines = re.sub(r"^#!lua[^\n]*\n", "", text).splitlines()
    length = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    code = (re.sub(r"--.*", "", line) for line in lines[length:])
    return "\n".join(lines[:length]), "\n".join(code)


def numbers_of(kind: str, text: str) -> set[int]:
    """The n of every KEYS[n] or ARGV[n]."""
    return {int(number) for number in re.findall(rf"{kind}\[(\d+)", text)}


@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_headers_agree_with_code(kind: str) -> None:
    """A header documents KEYS and ARGV from 1 without a gap; the code with its pieces reads these and no others.

    A key that is there only because a family of scripts is called with the same keys is marked `(not read)`. A list of
    any length is documented as `ARGV[3...]`, and read in a loop.
    """
    wrong = []
    for name, path in SCRIPT_FILES.items():
        header, _ = split_header(path.read_text())
        _, code = split_header(load_scripts()[name].text.decode())
        documented = numbers_of(kind, header)
        lists = re.findall(rf"{kind}\[(\d+)\.\.\.\]", header)
        unread = {int(number) for number in re.findall(rf"{kind}\[(\d+)\] [\w ]+ \(not read\)", header)}
        if documented != set(range(1, len(documented) + 1)):
            wrong.append(f"{name}: the header documents {kind} {sorted(documented)}")
        if bool(lists) != bool(re.search(rf"#{kind}\b", code)):
            wrong.append(f"{name}: a list of {kind} is documented or read, but not both")
        if (read := numbers_of(kind, code) | {int(number) for number in lists}) != documented - unread:
            wrong.append(f"{name}: the code reads {kind} {sorted(read)}, documented are {sorted(documented - unread)}")
    assert wrong == []


def test_headers_say_what_scripts_do_and_reply() -> None:
    """A header opens with the script's name and purpose, and documents the reply and the errors."""
    headers = {name: split_header(path.read_text())[0] for name, path in SCRIPT_FILES.items()}
    assert [name for name, header in headers.items() if not header.startswith(f"-- {name}: ")] == []
    assert [name for name, header in headers.items() if not re.search(r"^-- Reply\b", header, re.MULTILINE)] == []


def test_arguments_are_named_at_the_top() -> None:
    """The first paragraph of a script or piece names its KEYS and ARGV, and is nothing else; none is read below it.

    Pieces read the five keys and the account id that all scripts of an account are called with by their position.
    """
    wrong = []
    for name, path in {**SCRIPT_FILES, **PIECES}.items():
        _, code = split_header(path.read_text())
        if name in PIECES:
            code = re.sub(r"KEYS\[[1-5]\]|ARGV\[1\]", "common", code)
        block, _, rest = code.strip("\n").partition("\n\n")
        if not re.search(r"\b(KEYS|ARGV)\b", block):
            rest = f"{block}\n{rest}"
        elif not all(re.match(r"local |for |  |end$", line) for line in block.splitlines()):
            wrong.append(f"{name}: {block}")
        if re.search(r"\b(KEYS|ARGV)\b", rest):
            wrong.append(name)
    assert wrong == []


def test_lines_of_scripts_are_short() -> None:
    """No line of a script is longer than 120 columns."""
    wrong = [
        f"{name}:{number}"
        for name, path in {**SCRIPT_FILES, **PIECES}.items()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert wrong == []


def pieces_of(name: str) -> set[str]:
    """Return all pieces that a script or piece includes, by themselves or through others."""
    found: set[str] = set()
    waiting = [{**SCRIPT_FILES, **PIECES}[name].read_text()]
    while waiting:
        for piece in set(re.findall(r"^ *-- include (\S+)$", waiting.pop(), re.MULTILINE)) - found:
            found.add(piece)
            waiting.append(PIECES[piece].read_text())
    return found


def test_scripts_carry_what_they_need() -> None:
    """What changes an account's team, freezing, plan or caps carries no rule of expiry; the first two no spend caps."""
    expiry = {"lib/due", "lib/grants", "lib/holds", "lib/lease", "lib/parents", "lib/spending"}
    caps = {"lib/caps", "lib/cap_counts", "lib/plan_caps"}
    for name in ("create_team", "set_member", "freeze"):
        assert not pieces_of(name) & (expiry | caps), name
    for name in ("set_plan", "set_cap", "raise_cap", "clear_cap", "remove_cap"):
        assert not pieces_of(name) & (expiry | {"lib/cap_counts"}), name


def test_every_piece_is_included() -> None:
    """Every piece in lua/lib is part of some script."""
    included: set[str] = set().union(*(pieces_of(name) for name in SCRIPT_FILES))
    assert included == set(PIECES)


def test_python_names_the_scripts_that_exist() -> None:
    """Every script is named in Python, and Python asks for no script that does not exist."""
    constants: set[str] = set()
    asked_for: set[str] = set()
    for path in PYTHON_FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                constants.add(node.value)
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and isinstance(node.value, ast.Name | ast.Attribute)
                and ast.unparse(node.value).rpartition(".")[2] in ("scripts", "_scripts")
            ):
                asked_for.add(node.slice.value)
    assert asked_for <= set(SCRIPT_FILES)
    assert set(SCRIPT_FILES) <= constants


def test_parts_of_the_manager_do_not_hide_each_other() -> None:
    """Each method of the manager, private ones too, stands in one of its parts: none silently takes another's place."""
    parts = [part for part in ManagerCore.__mro__ if part not in (object, ManagerCore, ManagerBase)]
    places: dict[str, list[str]] = {}
    for part in parts:
        for name in vars(part):
            if not name.startswith("__"):
                places.setdefault(name, []).append(part.__name__)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


_CLAUSES = frozenset({"what", "whatever", "who", "whoever", "whether", "where", "when", "which", "that", "how"})
# A function's docstring that begins with one of these is a noun phrase.
_NOUN_PHRASES = frozenset(
    {
        "a",
        "an",
        "the",
        "this",
        "these",
        "all",
        "each",
        "every",
        "some",
        "no",
        "one",
        "its",
        "their",
        "it",
        "of",
        "as",
        "in",
    }
)


def docstrings(path: Path) -> Iterator[tuple[int, bool, str]]:
    """Each docstring of a file: its line, whether a function has it that is called as one, and its first line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                called = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
                    "property" in ast.unparse(decorator) or "fixture" in ast.unparse(decorator)
                    for decorator in node.decorator_list
                )
                is_test = getattr(node, "name", "").startswith("test_")
                yield getattr(node, "lineno", 1), called and not is_test, text.splitlines()[0]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    """No docstring begins with a clause; that of a function begins with a verb, in the imperative."""
    wrong = []
    for path in (*PYTHON_FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))):
        for line, is_function, text in docstrings(path):
            first = re.split(r"[\s,.:;]", text, maxsplit=1)[0].lower()
            if first in _CLAUSES or (is_function and first in _NOUN_PHRASES):
                wrong.append(f"{relative(path)}:{line}: {text}")
    assert wrong == []
