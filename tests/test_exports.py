"""The names that `ducto_redis` itself exports: all that most applications import."""

import importlib.metadata
import subprocess
import sys

import pytest

import ducto_redis
from ducto_redis import errors

BETWEEN_STORE_AND_MANAGER = {"StalePricing", "RepriceLease", "TermsNeeded"}

AFTER_IMPORT = """
import sys
import ducto_redis
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"asyncio", "msgspec", "redis", "starlette"}))
ducto_redis.CreditError, ducto_redis.errors.CreditError
print(*sorted(name for name in sys.modules if name.startswith("ducto_redis.")))
"""


def test_every_error_is_exported() -> None:
    """Every error that a user can catch stands in `ducto_redis`; those that no user sees do not."""
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }
    assert defined - set(ducto_redis.__all__) == BETWEEN_STORE_AND_MANAGER
    assert all(getattr(ducto_redis, name) is getattr(errors, name) for name in defined - BETWEEN_STORE_AND_MANAGER)


def test_every_export_is_there() -> None:
    """Each exported name has a value, also for `import *`, and there are no others."""
    everything: dict[str, object] = {}
    exec("from ducto_redis import *", everything)
    assert set(ducto_redis.__all__) <= set(everything)
    assert set(ducto_redis.__all__) <= set(dir(ducto_redis))
    with pytest.raises(AttributeError, match="module 'ducto_redis' has no attribute 'nothing'"):
        ducto_redis.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_version() -> None:
    """`__version__` is the version of the installed package."""
    assert ducto_redis.__version__ == importlib.metadata.version("ducto-redis")


def test_import_loads_what_is_used() -> None:
    """`import ducto_redis` loads no dependency, and a name only what it needs."""
    done = subprocess.run([sys.executable, "-c", AFTER_IMPORT], capture_output=True, text=True, check=True)
    dependencies, modules = done.stdout.split("\n")[:2]
    assert dependencies == ""
    assert modules.split() == ["ducto_redis.display", "ducto_redis.errors", "ducto_redis.suggestions"]
