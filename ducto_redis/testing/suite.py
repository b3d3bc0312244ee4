"""The suite, put together: every part in this folder, and every part in one class."""

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_MODULES = [
    f"{__package__}.{module.name}"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name not in ("plugin", "suite", "test_suite")
]
# Before the modules with the tests are imported: failed assertions in them are explained as in any test file.
pytest.register_assert_rewrite(*_MODULES)
for _module in _MODULES:
    import_module(_module)

from ducto_redis.testing.inspection import Snapshot, assert_fold, dump, read_journal  # noqa: E402
from ducto_redis.testing.opening import ConformanceTests, MakeStore, OpenStore  # noqa: E402

__all__ = ["PARTS", "MakeStore", "OpenStore", "Snapshot", "StoreConformance", "assert_fold", "dump", "read_journal"]

PARTS = {part.__name__: part for part in sorted(ConformanceTests.__subclasses__(), key=lambda part: part.__name__)}
"""The parts of the suite by their name, such as `LeaseConformance`."""

globals().update(PARTS)

if TYPE_CHECKING:

    class StoreConformance(ConformanceTests):
        """Every test of the suite, on the stores of the fixture `make_store`."""
else:

    class StoreConformance(*PARTS.values()):
        """Every test of the suite, on the stores of the fixture `make_store`."""
