"""The suite as a plugin of pytest: `pytest --ducto-store=mypkg.testing:make_store`.

Without paths that runs the suite alone; `--pyargs ducto_redis.testing` names it among others. pytest loads this file in
every project that it is installed beside: it imports nothing but pytest.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

OPTION = "ducto_store"
MAKE_STORE = pytest.StashKey[Any]()
SUITE = Path(__file__).parent / "test_suite.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("ducto-redis").addoption(
        "--ducto-store",
        dest=OPTION,
        metavar="MODULE:FUNCTION",
        help="run ducto-redis' conformance suite on the stores that this function makes: see docs/custom-stores.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find the function; run the suite if no paths are given."""
    name = config.getoption(OPTION)
    if name is None:
        return
    if not config.pluginmanager.hasplugin("asyncio"):
        raise pytest.UsageError("--ducto-store needs pytest-asyncio: pip install 'ducto-redis[conformance]'")
    config.stash[MAKE_STORE] = load(name)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(SUITE)]


@pytest.fixture(scope="session")
def ducto_store(pytestconfig: pytest.Config) -> Any:
    """Return the function that `--ducto-store` names."""
    if MAKE_STORE not in pytestconfig.stash:
        pytest.skip("--ducto-store=MODULE:FUNCTION says which stores to test")
    return pytestconfig.stash[MAKE_STORE]


def load(name: str) -> Any:
    """Return the function that `module:function` names.

    Raises:
        UsageError: if there is none.
    """
    module_name, separator, function = name.partition(":")
    if not separator or not module_name or not function:
        raise pytest.UsageError(f"--ducto-store is MODULE:FUNCTION, such as mypkg.testing:make_store, not {name!r}")
    if "" not in sys.path and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # `pytest`, unlike `python -m pytest`, does not look into the folder it is called in
    try:
        made = getattr(importlib.import_module(module_name), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise pytest.UsageError(f"--ducto-store={name}: there is no module {module_name!r}") from None
    except AttributeError:
        raise pytest.UsageError(f"--ducto-store={name}: module {module_name!r} has no {function!r}") from None
    if not callable(made):
        raise pytest.UsageError(f"--ducto-store={name}: {function!r} is {made!r:.60}, not a function")
    return made
